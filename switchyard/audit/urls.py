"""URLs of the audit log; include them at the root, before the admin."""

from __future__ import annotations

from django.urls import path

from switchyard.audit import views
from switchyard.console.room_view import room_view

urlpatterns = [path("admin/operations/audit/", room_view(views.audit_log), name="switchyard-audit")]
