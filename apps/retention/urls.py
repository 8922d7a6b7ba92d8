"""URL of the retention's page."""

from __future__ import annotations

from django.urls import path

from apps.retention import views
from switchyard.console.room_view import room_view

urlpatterns = [path("admin/operations/retention/", room_view(views.retention), name="switchyard-retention")]
