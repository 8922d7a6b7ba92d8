"""URLs of operations; include them at the root, before the admin."""

from __future__ import annotations

from django.urls import include, path

from switchyard.console.room_view import room_view
from switchyard.operations import views, worker_views
from switchyard.operations.instructions import views as instruction_views

urlpatterns = [
    path("metrics", views.metrics, name="switchyard-metrics"),
    path("healthz", views.healthz, name="switchyard-healthz"),
    path("readyz", views.readyz, name="switchyard-readyz"),
    path("admin/operations/", room_view(views.overview), name="switchyard-operations"),
    path("admin/operations/live/", room_view(views.live), name="switchyard-operations-live"),
    path("admin/operations/workers/", room_view(worker_views.workers), name="switchyard-operations-workers"),
    path("admin/operations/workers/live/", room_view(worker_views.live), name="switchyard-operations-workers-live"),
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
    path("", include("switchyard.retention.urls")),
    path("", include("switchyard.frame.urls")),
]
