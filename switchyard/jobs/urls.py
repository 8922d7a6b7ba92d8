"""URLs of the list of jobs and of a job's pages; ``switchyard.operations.urls`` includes them."""

from __future__ import annotations

from django.urls import path

from switchyard.console.room_view import Views, room_view
from switchyard.jobs.admin_pages import events_view, job_events
from switchyard.jobs.listing.stream import list_events

chosen = Views("switchyard.jobs.listing.chosen")
listing = Views("switchyard.jobs.listing.views")
acts = Views("switchyard.jobs.passport.act_views")
passport = Views("switchyard.jobs.passport.views")

BASE = "admin/switchyard_jobs/job/"
JOB = f"{BASE}<str:job_id>/"

urlpatterns = [
    path(BASE, room_view(listing.jobs), name="switchyard-jobs"),
    path(f"{BASE}live/", room_view(listing.live), name="switchyard-jobs-live"),
    path(f"{BASE}events/", events_view(list_events), name="switchyard-jobs-events"),
    path(f"{BASE}chosen/<str:verb>/", room_view(chosen.chosen), name="switchyard-jobs-chosen"),
    path(JOB, room_view(passport.passport), name="switchyard-job"),
    path(f"{JOB}live/", room_view(passport.live), name="switchyard-job-live"),
    path(f"{JOB}events/", events_view(job_events), name="switchyard-job-events"),
    path(f"{JOB}cancel/", room_view(acts.cancel), name="switchyard-job-cancel"),
    path(f"{JOB}run-now/", room_view(acts.run_now), name="switchyard-job-run-now"),
    path(f"{JOB}edit/", room_view(acts.edit), name="switchyard-job-edit"),
    path(f"{JOB}again/", room_view(acts.again), name="switchyard-job-again"),
]
