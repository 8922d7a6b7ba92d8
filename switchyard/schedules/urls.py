"""URLs of the schedules' pages; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import Views, room_view

views = Views("switchyard.schedules.views")

ROOT = "admin/operations/schedules/"

urlpatterns = [
    path(ROOT, room_view(views.all_schedules), name="switchyard-schedules"),
    path(f"{ROOT}<str:name>/", room_view(views.schedule), name="switchyard-schedule"),
    path(f"{ROOT}<str:name>/run/", room_view(views.run), name="switchyard-schedule-run"),
    path(f"{ROOT}<str:name>/pause/", room_view(views.pause), name="switchyard-schedule-pause"),
    path(f"{ROOT}<str:name>/resume/", room_view(views.resume), name="switchyard-schedule-resume"),
]
