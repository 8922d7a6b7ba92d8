"""URL of the retention's page; ``switchyard.operations.urls`` includes it."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from switchyard.retention import views

urlpatterns = [path("admin/operations/retention/", admin.site.admin_view(views.retention), name="switchyard-retention")]
