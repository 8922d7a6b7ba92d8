"""URLs of the schedules' pages; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from switchyard.schedules import views

view = admin.site.admin_view
ROOT = "admin/operations/schedules/"

urlpatterns = [
    path(ROOT, view(views.all_schedules), name="switchyard-schedules"),
    path(f"{ROOT}<str:name>/", view(views.schedule), name="switchyard-schedule"),
    path(f"{ROOT}<str:name>/run/", view(views.run), name="switchyard-schedule-run"),
    path(f"{ROOT}<str:name>/pause/", view(views.pause), name="switchyard-schedule-pause"),
    path(f"{ROOT}<str:name>/resume/", view(views.resume), name="switchyard-schedule-resume"),
]
