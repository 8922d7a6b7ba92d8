"""Jobs in the admin: look up by id, show the history, cancel."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from apps.platform.console.admin_base import ModelAdmin
from apps.platform.console.read_only import ReadOnly
from apps.platform.jobs.models import Job
from apps.platform.jobs.queries import find_job, find_untracked, is_job_id
from apps.platform.jobs.services import request_cancel
from apps.platform.jobs.story import story_of
from broker.errors import BrokerError

CANCEL_ANSWERS = {
    "cancelled": (messages.SUCCESS, "Cancelled. The job will not start."),
    "asked": (messages.SUCCESS, "Cancellation requested. The job is running and stops within 10 seconds."),
    "ended": (messages.WARNING, "The job has ended already; there is nothing to cancel."),
    "unknown": (messages.ERROR, "No job has this id any longer. One without a record may have ended."),
}


@admin.register(Job)
class JobAdmin(ReadOnly, ModelAdmin):
    """Jobs at ``/admin/switchyard_jobs/job/``. The records are in the broker; the model has no table."""

    def get_urls(self) -> list[Any]:
        """Return the URLs of the look-up page, a job's page and its cancellation."""
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name="switchyard_jobs_job_changelist"),
            path("<str:job_id>/", view(self.show_job), name="switchyard_jobs_job_change"),
            path("<str:job_id>/cancel/", view(self.cancel_job), name="switchyard_jobs_job_cancel"),
        ]

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may cancel jobs."""
        return bool(request.user.has_perm("switchyard_jobs.cancel_job"))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the look-up form, or redirect to the job whose id was entered."""
        self._check_view(request)
        job_id = request.GET.get("id", "").strip()[:100]
        try:
            found = find_job(job_id.lower()) if job_id else None
        except BrokerError:
            return self._unavailable(request)
        if found is not None:
            return redirect("admin:switchyard_jobs_job_change", found.id)
        return self._look_up(request, job_id)

    def show_job(self, request: HttpRequest, job_id: str) -> HttpResponse:
        """Show one job."""
        self._check_view(request)
        try:
            job = find_job(job_id)
        except BrokerError:
            return self._unavailable(request)
        if job is None:
            return self._look_up(request, job_id[:100], status=404)
        context = {
            "title": job.actor,
            "subtitle": job.id,
            "job": job,
            "story": story_of(job),
            "may_cancel": not job.ended and not job.cancel_requested and self.has_cancel_permission(request),
        }
        return self._render(request, "switchyard_jobs/story.html", context)

    def cancel_job(self, request: HttpRequest, job_id: str) -> HttpResponse:
        """Request the cancellation of a job."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        self._check_view(request)
        if not self.has_cancel_permission(request):
            raise PermissionDenied
        try:
            answer = request_cancel(job_id) if is_job_id(job_id) else "unknown"
        except BrokerError:
            return self._unavailable(request)
        level, text = CANCEL_ANSWERS[answer]
        messages.add_message(request, level, text)
        return redirect(reverse("admin:switchyard_jobs_job_change", args=[job_id]))

    def _look_up(self, request: HttpRequest, job_id: str, status: int = 200) -> HttpResponse:
        try:
            untracked = find_untracked(job_id.lower())
        except BrokerError:
            untracked = None  # the page says that the broker is away
        context = {
            "title": "Jobs",
            "job_id": job_id,
            "untracked": untracked,
            "may_cancel": self.has_cancel_permission(request),
        }
        return self._render(request, "switchyard_jobs/look_up.html", context, status)

    def _unavailable(self, request: HttpRequest) -> HttpResponse:
        messages.error(request, "The broker does not answer, so jobs cannot be shown; check /readyz, then try again.")
        return self._look_up(request, "", status=503)

    def _check_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _render(self, request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts}
        return TemplateResponse(request, template, {**shared, **context}, status=status)
