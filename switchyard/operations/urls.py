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
instruction_views = Views("switchyard.operations.instructions.views")

urlpatterns: list[URLPattern | URLResolver] = [
    path("metrics", views.metrics, name="switchyard-metrics"),
    path("healthz", views.healthz, name="switchyard-healthz"),
    path("readyz", views.readyz, name="switchyard-readyz"),
]
_ROOM: list[URLPattern | URLResolver] = [
    path("admin/operations/", room_view(overview_views.overview), name="switchyard-operations"),
    path("admin/operations/live/", room_view(overview_views.live), name="switchyard-operations-live"),
    path("admin/operations/workers/", room_view(worker_views.workers), name="switchyard-operations-workers"),
    path(
        "admin/operations/workers/live/",
        room_view(worker_views.live),
        name="switchyard-operations-workers-live",
    ),
    path(
        "admin/operations/workers/<str:member>/stacks/",
        room_view(worker_views.ask_for_stacks),
        name="switchyard-operations-ask-for-stacks",
    ),
    path(
        "admin/operations/workers/<str:member>/stacks/<str:name>/",
        room_view(worker_views.stacks),
        name="switchyard-operations-stacks",
    ),
    # Beside the workers, whose names may be any word.
    path(
        "admin/operations/instructions/<str:verb>/",
        room_view(instruction_views.instruct),
        name="switchyard-operations-instruct",
    ),
    # Named, not imported: the apps of some of these pages stand above this one.
    path("", include("switchyard.queues.urls")),
    path("", include("switchyard.jobs.urls")),
    path("", include("switchyard.dead_letters.urls")),
    path("", include("switchyard.alerts.urls")),
    path("", include("switchyard.schedules.urls")),
    path("", include("switchyard.actors.urls")),
    path("", include("switchyard.audit.urls")),
    path("", include("switchyard.bulk.urls")),
    path("", include("switchyard.frame.urls")),
]

if installed_apps.is_installed("django.contrib.admin"):
    urlpatterns += _ROOM
