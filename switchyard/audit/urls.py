"""URLs of the audit log; include them at the root, before the admin."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from switchyard.audit import views

urlpatterns = [path("admin/operations/audit/", admin.site.admin_view(views.audit_log), name="switchyard-audit")]
