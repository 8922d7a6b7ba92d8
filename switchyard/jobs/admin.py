"""Jobs in the admin: addresses of the list and of a job's pages."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.urls import path

from switchyard.console.admin_base import ModelAdmin
from switchyard.console.read_only import ReadOnly
from switchyard.jobs.admin_streams import events_view
from switchyard.jobs.listing import chosen
from switchyard.jobs.listing import views as listing
from switchyard.jobs.listing.stream import list_events
from switchyard.jobs.models import Job
from switchyard.jobs.passport import act_views as acts
from switchyard.jobs.passport import edit_views
from switchyard.jobs.passport import views as passport
from switchyard.jobs.passport.stream import job_events


@admin.register(Job)
class JobAdmin(ReadOnly, ModelAdmin):
    """Jobs at ``/admin/switchyard_jobs/job/``. The records are in the broker; the model has no table."""

    def get_urls(self) -> list[Any]:
        """Return the URLs of the list and of a job's page, both with their events, and of the acts on a job."""
        view = self.admin_site.admin_view
        return [
            path("", view(listing.jobs), name="switchyard_jobs_job_changelist"),
            path("live/", view(listing.live), name="switchyard_jobs_job_list_live"),
            path("events/", events_view(view, list_events), name="switchyard_jobs_job_list_events"),
            path("chosen/<str:verb>/", view(chosen.chosen), name="switchyard_jobs_job_chosen"),
            path("<str:job_id>/", view(passport.passport), name="switchyard_jobs_job_change"),
            path("<str:job_id>/live/", view(passport.live), name="switchyard_jobs_job_live"),
            path("<str:job_id>/events/", events_view(view, job_events), name="switchyard_jobs_job_events"),
            path("<str:job_id>/cancel/", view(acts.cancel), name="switchyard_jobs_job_cancel"),
            path("<str:job_id>/run-now/", view(acts.run_now), name="switchyard_jobs_job_run_now"),
            path("<str:job_id>/edit/", view(edit_views.edit), name="switchyard_jobs_job_edit"),
            path("<str:job_id>/again/", view(acts.again), name="switchyard_jobs_job_again"),
        ]
