"""URLs of metrics, probes and the operations room; include them at the root, before the admin.

The room needs the users, sessions and permissions that come with Django's admin: without ``django.contrib.admin`` in
``INSTALLED_APPS`` there is no room, and a yard is watched by its metrics and commands.
"""

from __future__ import annotations

from django.apps import apps as installed_apps
from django.urls import URLPattern, URLResolver, include, path

from switchyard.console.room_view import Views, room_view

overview_views = Views("switchyard.operations.overview_views")
views = Views("switchyard.operations.views")
worker_views = Views("switchyard.operations.worker_views")
instruction_views = Views("switchyard.operations.worker_views")

urlpatterns: list[URLPattern | URLResolver] = [
    path("metrics", views.metrics, name="switchyard-metrics"),
    path("healthz", views.healthz, name="switchyard-healthz"),
    path("readyz", views.readyz, name="switchyard-readyz"),
]
ROOM = "admin/operations/"
STACKS = f"{ROOM}workers/<str:member>/stacks/"
# Named, not imported: the apps of some of these pages stand above this one.
PAGES = ("queues", "jobs", "dead_letters", "alerts", "schedules", "actors", "audit", "bulk", "frame")
_ROOM: list[URLPattern | URLResolver] = [
    path(ROOM, room_view(overview_views.overview), name="switchyard-operations"),
    path(f"{ROOM}live/", room_view(overview_views.live), name="switchyard-operations-live"),
    path(f"{ROOM}workers/", room_view(worker_views.workers), name="switchyard-operations-workers"),
    path(f"{ROOM}workers/live/", room_view(worker_views.live), name="switchyard-operations-workers-live"),
    path(STACKS, room_view(worker_views.ask_for_stacks), name="switchyard-operations-ask-for-stacks"),
    path(f"{STACKS}<str:name>/", room_view(worker_views.stacks), name="switchyard-operations-stacks"),
    # Beside the workers, whose names may be any word.
    path(
        f"{ROOM}instructions/<str:verb>/", room_view(instruction_views.instruct), name="switchyard-operations-instruct"
    ),
    *(path("", include(f"switchyard.{page}.urls")) for page in PAGES),
]

if installed_apps.is_installed("django.contrib.admin"):
    urlpatterns += _ROOM
