"""URL of the page of the retention."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import Views, room_view

views = Views("apps.retention.views")

urlpatterns = [path("admin/operations/retention/", room_view(views.retention), name="switchyard-retention")]
