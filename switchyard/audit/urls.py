"""URLs of the audit log; include them at the root, before the admin."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import Views, room_view

views = Views("switchyard.audit.views")

urlpatterns = [path("admin/operations/audit/", room_view(views.audit_log), name="switchyard-audit")]
