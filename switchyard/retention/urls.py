"""URL of the retention's page; ``switchyard.operations.urls`` includes it."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import Views, room_view

views = Views("switchyard.retention.views")

urlpatterns = [path("admin/operations/retention/", room_view(views.retention), name="switchyard-retention")]
