"""URLs of metrics, probes and every page of the operations room; include them at the root, before the admin.

The room needs the users, sessions and permissions that come with Django's admin: without ``django.contrib.admin`` in
``INSTALLED_APPS`` there is no room, and a yard is watched by its metrics and commands.

Views are named, not imported: the apps of some stand above this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.apps import apps as installed_apps
from django.http import HttpRequest
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from switchyard.console.room_view import Views, independent, room_view

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

measured = Views("switchyard.operations.views")
overview = Views("switchyard.operations.overview_views")
workers = Views("switchyard.operations.worker_views")
queues = Views("switchyard.queues.views")
limits = Views("switchyard.queues.limit_views")
job_list = Views("switchyard.jobs.listing.views")
passport = Views("switchyard.jobs.passport.views")
letters = Views("switchyard.dead_letters.views")
alerts = Views("switchyard.alerts.views")
schedules = Views("switchyard.schedules.views")
stored_schedules = Views("switchyard.schedules.row_views")
actors = Views("switchyard.actors.views")
audit = Views("switchyard.audit.views")
bulk = Views("switchyard.bulk.views")
batches = Views("switchyard.batches.views")
frame = Views("switchyard.frame.views")


def page(address: str, view: Callable[..., Any], name: str) -> URLPattern:
    return path(address, room_view(view), name=f"switchyard-{name}")


def parts(address: str, views: Views, of: str, *names: str) -> list[URLPattern]:
    """Return pages below an address: ``run-now`` is the view ``run_now``, named ``switchyard-<of>-run-now``."""
    return [page(f"{address}{name}/", getattr(views, name.replace("-", "_")), f"{of}{name}") for name in names]


@require_GET
@independent
async def job_events(request: HttpRequest, job_id: str) -> Any:
    """Stream the events of a job."""
    return await passport.events(request, job_id)


urlpatterns = [
    path("metrics", independent(measured.metrics), name="switchyard-metrics"),
    path("healthz", independent(measured.healthz), name="switchyard-healthz"),
    path("readyz", independent(measured.readyz), name="switchyard-readyz"),
]
if installed_apps.is_installed("django.contrib.admin"):
    urlpatterns += [
        page(ROOM, overview.overview, "operations"),
        *parts(ROOM, overview, "operations-", "live", "note"),
        page(f"{ROOM}workers/", workers.workers, "operations-workers"),
        page(f"{ROOM}workers/live/", workers.live, "operations-workers-live"),
        page(STACKS, workers.ask_for_stacks, "operations-ask-for-stacks"),
        page(f"{STACKS}<str:name>/", workers.stacks, "operations-stacks"),
        # Beside the workers and the queues, whose names may be any word.
        page(f"{ROOM}instructions/<str:verb>/", workers.instruct, "operations-instruct"),
        page(f"{ROOM}queues/", queues.queues, "queues"),
        page(QUEUE, queues.queue, "queue"),
        *parts(QUEUE, queues, "queue-", "live", "pause", "note", "purge", "relocate", "resume"),
        page(f"{QUEUE}purge/<str:purge_id>/undo/", queues.undo, "queue-undo"),
        page(JOBS, job_list.jobs, "jobs"),
        page(f"{JOBS}live/", job_list.live, "jobs-live"),
        page(JOB, passport.passport, "job"),
        page(f"{JOB}live/", passport.live, "job-live"),
        path(f"{JOB}events/", job_events, name="switchyard-job-events"),
        *parts(JOB, passport, "job-", "cancel", "run-now", "again"),
        page(LETTERS, letters.letters, "letters"),
        page(f"{LETTERS}quarantine/", letters.quarantined, "quarantine"),
        page(f"{LETTER}change/", letters.letter, "letter"),
        page(f"{LETTER}note/", letters.note, "letter-note"),
        page(f"{LETTER}edit/", passport.edit_letter, "letter-edit"),
        page(f"{LETTER}<str:action>/do/", letters.one, "letter-act"),
        page(ALERTS, alerts.alerts, "alerts"),
        page(f"{ALERTS}silences/new/", alerts.silence, "alerts-silence"),
        page(f"{ALERTS}silences/<int:pk>/end/", alerts.unsilence, "alerts-unsilence"),
        page(f"{ALERTS}channels/test/", alerts.test, "alerts-test"),
        page(f"{ALERTS}<int:pk>/change/", alerts.alert, "alert"),
        page(f"{ALERTS}<int:pk>/note/", alerts.note, "alert-note"),
        page(f"{ALERTS}<int:pk>/<str:verb>/do/", alerts.one, "alert-act"),
        page(f"{ROOM}schedules/", schedules.all_schedules, "schedules"),
        page(f"{ROOM}new-schedule/", stored_schedules.new, "schedule-new"),
        page(SCHEDULE, schedules.schedule, "schedule"),
        *parts(SCHEDULE, stored_schedules, "schedule-", "edit", "delete"),
        *parts(SCHEDULE, schedules, "schedule-", "run", "pause", "resume"),
        *parts(ROOM, actors, "", "actors", "costs"),
        page(ACTOR, actors.actor, "actor"),
        *parts(ACTOR, actors, "actor-", "send", "pause", "resume", "open-circuit"),
        page(f"{ROOM}limits/", limits.limits, "limits"),
        page(f"{ROOM}limits/override/", limits.override, "limit-override"),
        page(f"{ROOM}audit/", audit.audit_log, "audit"),
        page(BATCHES, batches.batches, "batches"),
        page(f"{BATCHES}<str:batch_id>/", batches.batch, "batch"),
        page(BULK, bulk.acts, "bulk-acts"),
        page(ACT, bulk.act, "bulk-act"),
        *parts(ACT, bulk, "bulk-act-", "live", "stop", "take-back"),
        page(f"{BULK}begin/<str:kind>/", bulk.begin, "bulk-begin"),
        *parts(ROOM, frame, "", "find", "steps", "strip", "keys", "theme"),
    ]
