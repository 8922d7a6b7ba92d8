"""URLs of the list of jobs and of a job's pages; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.http import HttpRequest
from django.urls import path
from django.views.decorators.http import require_GET

from switchyard.console.room_view import Views, room_view

pages = Views("switchyard.jobs.admin_pages")
streams = Views("switchyard.jobs.listing.stream")
chosen = Views("switchyard.jobs.listing.chosen")
listing = Views("switchyard.jobs.listing.views")
acts = Views("switchyard.jobs.passport.act_views")
passport = Views("switchyard.jobs.passport.views")

BASE = "admin/switchyard_jobs/job/"
JOB = f"{BASE}<str:job_id>/"


def events_view(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Return a view that streams events, see :func:`switchyard.jobs.admin_pages.stream`."""

    # Django refuses asynchronous views within ATOMIC_REQUESTS.
    @require_GET
    @transaction.non_atomic_requests
    async def events(request: HttpRequest, **parts: str) -> Any:
        return await pages.stream(request, answer, **parts)

    return events


urlpatterns = [
    path(BASE, room_view(listing.jobs), name="switchyard-jobs"),
    path(f"{BASE}live/", room_view(listing.live), name="switchyard-jobs-live"),
    path(f"{BASE}events/", events_view(streams.list_events), name="switchyard-jobs-events"),
    path(f"{BASE}chosen/<str:verb>/", room_view(chosen.chosen), name="switchyard-jobs-chosen"),
    path(JOB, room_view(passport.passport), name="switchyard-job"),
    path(f"{JOB}live/", room_view(passport.live), name="switchyard-job-live"),
    path(f"{JOB}events/", events_view(pages.job_events), name="switchyard-job-events"),
    path(f"{JOB}cancel/", room_view(acts.cancel), name="switchyard-job-cancel"),
    path(f"{JOB}run-now/", room_view(acts.run_now), name="switchyard-job-run-now"),
    path(f"{JOB}edit/", room_view(acts.edit), name="switchyard-job-edit"),
    path(f"{JOB}again/", room_view(acts.again), name="switchyard-job-again"),
]
