"""URLs of metrics, probes and every page of the operations room; include them at the root, before the admin.

The room needs the users, sessions and permissions that come with Django's admin: without ``django.contrib.admin`` in
``INSTALLED_APPS`` there is no room, and a yard is watched by its metrics and commands.

Views are named, not imported: the apps of some stand above this one.
"""

from typing import Any

from django.apps import apps as installed_apps
from django.http import HttpRequest
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from switchyard.console.room_view import independent, room_view, view_of

ROOM = "admin/operations/"
STACKS = f"{ROOM}workers/<str:member>/stacks/"
QUEUE = f"{ROOM}queues/<str:name>/"
ACTOR = f"{ROOM}actors/<str:name>/"
SCHEDULE = f"{ROOM}schedules/<str:name>/"
BULK = f"{ROOM}bulk/"
ACT = f"{BULK}<int:number>/"
BATCHES = f"{ROOM}batches/"
JOBS = "admin/switchyard_jobs/job/"
JOB = f"{JOBS}<str:job_id>/"
LETTERS = "admin/switchyard_dead_letters/deadletter/"
LETTER = f"{LETTERS}<int:pk>/"
ALERTS = "admin/switchyard_alerts/alert/"


def page(address: str, view: str, name: str) -> URLPattern:
    return path(address, room_view(view_of(f"switchyard.{view}")), name=f"switchyard-{name}")


def parts(address: str, views: str, of: str, *names: str) -> list[URLPattern]:
    """Return pages below an address: ``run-now`` is the view ``run_now``, named ``switchyard-<of>-run-now``."""
    return [page(f"{address}{name}/", f"{views}.{name.replace('-', '_')}", f"{of}{name}") for name in names]


@require_GET
@independent
async def job_events(request: HttpRequest, job_id: str) -> Any:
    """Stream the events of a job."""
    return await view_of("switchyard.jobs.passport.views.events")(request, job_id)


urlpatterns = [
    path(name, independent(view_of(f"switchyard.operations.views.{name}")), name=f"switchyard-{name}")
    for name in ("metrics", "healthz", "readyz")
]
if installed_apps.is_installed("django.contrib.admin"):
    urlpatterns += [
        page(ROOM, "operations.overview_views.overview", "operations"),
        *parts(ROOM, "operations.overview_views", "operations-", "live", "note"),
        page(f"{ROOM}workers/", "operations.overview_views.workers", "operations-workers"),
        page(f"{ROOM}workers/live/", "operations.overview_views.workers_live", "operations-workers-live"),
        page(STACKS, "operations.overview_views.ask_for_stacks", "operations-ask-for-stacks"),
        page(f"{STACKS}<str:name>/", "operations.overview_views.stacks", "operations-stacks"),
        # Beside the workers and the queues, whose names may be any word.
        page(f"{ROOM}instructions/<str:verb>/", "operations.overview_views.instruct", "operations-instruct"),
        page(f"{ROOM}queues/", "queues.views.queues", "queues"),
        page(QUEUE, "queues.views.queue", "queue"),
        *parts(QUEUE, "queues.views", "queue-", "live", "pause", "note", "purge", "relocate", "resume"),
        page(f"{QUEUE}purge/<str:purge_id>/undo/", "queues.views.undo", "queue-undo"),
        page(JOBS, "jobs.listing.views.jobs", "jobs"),
        page(f"{JOBS}live/", "jobs.listing.views.live", "jobs-live"),
        page(JOB, "jobs.passport.views.passport", "job"),
        page(f"{JOB}live/", "jobs.passport.views.live", "job-live"),
        path(f"{JOB}events/", job_events, name="switchyard-job-events"),
        *parts(JOB, "jobs.passport.views", "job-", "cancel", "run-now", "again"),
        page(LETTERS, "dead_letters.views.letters", "letters"),
        page(f"{LETTERS}quarantine/", "dead_letters.views.quarantined", "quarantine"),
        page(f"{LETTER}change/", "dead_letters.views.letter", "letter"),
        page(f"{LETTER}note/", "dead_letters.views.note", "letter-note"),
        page(f"{LETTER}edit/", "jobs.passport.views.edit_letter", "letter-edit"),
        page(f"{LETTER}<str:action>/do/", "dead_letters.views.one", "letter-act"),
        page(ALERTS, "alerts.views.alerts", "alerts"),
        page(f"{ALERTS}silences/new/", "alerts.views.silence", "alerts-silence"),
        page(f"{ALERTS}silences/<int:pk>/end/", "alerts.views.unsilence", "alerts-unsilence"),
        page(f"{ALERTS}channels/test/", "alerts.views.test", "alerts-test"),
        page(f"{ALERTS}<int:pk>/change/", "alerts.views.alert", "alert"),
        page(f"{ALERTS}<int:pk>/note/", "alerts.views.note", "alert-note"),
        page(f"{ALERTS}<int:pk>/<str:verb>/do/", "alerts.views.one", "alert-act"),
        page(f"{ROOM}schedules/", "schedules.views.all_schedules", "schedules"),
        page(f"{ROOM}new-schedule/", "schedules.views.new", "schedule-new"),
        page(SCHEDULE, "schedules.views.schedule", "schedule"),
        *parts(SCHEDULE, "schedules.views", "schedule-", "edit", "delete", "run", "pause", "resume"),
        *parts(ROOM, "actors.views", "", "actors", "costs"),
        page(ACTOR, "actors.views.actor", "actor"),
        *parts(ACTOR, "actors.views", "actor-", "send", "pause", "resume", "open-circuit"),
        page(f"{ROOM}limits/", "queues.views.limits", "limits"),
        page(f"{ROOM}limits/override/", "queues.views.override", "limit-override"),
        page(f"{ROOM}audit/", "audit.views.audit_log", "audit"),
        page(BATCHES, "batches.views.batches", "batches"),
        page(f"{BATCHES}<str:batch_id>/", "batches.views.batch", "batch"),
        page(BULK, "bulk.views.acts", "bulk-acts"),
        page(ACT, "bulk.views.act", "bulk-act"),
        *parts(ACT, "bulk.views", "bulk-act-", "live", "stop", "take-back"),
        page(f"{BULK}begin/<str:kind>/", "bulk.views.begin", "bulk-begin"),
        *parts(ROOM, "frame.views", "", "find", "steps", "strip", "keys", "theme"),
    ]
