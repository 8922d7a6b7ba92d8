"""Jobs in the admin: the list, a job's passport, cancel, run again."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_safe
from dramatiq.middleware import MiddlewareError

from apps.platform.audit.services import Who
from apps.platform.console.admin_base import ModelAdmin
from apps.platform.console.links import job_url
from apps.platform.console.read_only import ReadOnly
from apps.platform.history.filters import Filter
from apps.platform.history.search_values import why_none_found
from apps.platform.jobs.calls.arguments import read_json
from apps.platform.jobs.listing.form import context_of, filter_of, searched
from apps.platform.jobs.listing.pages import JobsPage, find_jobs
from apps.platform.jobs.listing.unfinished import UNFINISHED, wants_unfinished
from apps.platform.jobs.models import Job
from apps.platform.jobs.passport.again import run_again
from apps.platform.jobs.passport.family import children_of
from apps.platform.jobs.passport.picture import picture_of
from apps.platform.jobs.passport.reading import TONES, Passport, passport_of
from apps.platform.jobs.passport.stream import AWAY, GONE, can_stream, events_view
from apps.platform.jobs.queries import find_untracked, is_job_id
from apps.platform.jobs.services import request_cancel
from broker.errors import BrokerError, SwitchyardError

CANCEL_ANSWERS = {
    "cancelled": (messages.SUCCESS, "Cancelled. The job will not start."),
    "asked": (messages.SUCCESS, "Cancellation requested. The job is running and stops within 10 seconds."),
    "ended": (messages.WARNING, "The job has ended already; there is nothing to cancel."),
    "unknown": (messages.ERROR, "No job has this id any longer. One without a record may have ended."),
}
# Fields below "Owner, tag, …": name, label, hint.
MORE_FIELDS = (
    ("owner", "Owner", "user:1"),
    ("tag", "Tag", "invoices"),
    ("error", "Error", "ValueError, or a part of its text"),
    ("fingerprint", "Fingerprint", "of a dead letter"),
    ("release", "Release", "2026.11.3"),
    ("until", "Until", "2026-11-21T13:00Z"),
)
UNCACHED = method_decorator(never_cache)


@admin.register(Job)
class JobAdmin(ReadOnly, ModelAdmin):
    """Jobs at ``/admin/switchyard_jobs/job/``. The records are in the broker; the model has no table."""

    def get_urls(self) -> list[Any]:
        """Return the URLs of the list, a job's page with its events, its cancellation and running it again."""
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name="switchyard_jobs_job_changelist"),
            path("<str:job_id>/", view(self.show_job), name="switchyard_jobs_job_change"),
            path("<str:job_id>/live/", view(self.show_live), name="switchyard_jobs_job_live"),
            path("<str:job_id>/events/", events_view(view, self._check_view), name="switchyard_jobs_job_events"),
            path("<str:job_id>/cancel/", view(self.cancel_job), name="switchyard_jobs_job_cancel"),
            path("<str:job_id>/again/", view(self.run_again), name="switchyard_jobs_job_again"),
        ]

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may cancel jobs."""
        return bool(request.user.has_perm("switchyard_jobs.cancel_job"))

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may run jobs again."""
        return bool(request.user.has_perm("switchyard_jobs.run_job"))

    def has_arguments_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may view the arguments of jobs."""
        return bool(request.user.has_perm("switchyard_jobs.view_arguments"))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list of jobs, or redirect to the job or the filter that was searched for."""
        self._check_view(request)
        asked = (request.GET.get("id") or request.GET.get("q") or "").strip()[:200]
        if asked:
            return self._searched(request, asked, only_id="id" in request.GET)
        return self._list(request)

    def _searched(self, request: HttpRequest, asked: str, *, only_id: bool) -> HttpResponse:
        if not is_job_id(asked.lower()) and not only_id:
            return redirect(f"{request.path}?{urlencode(searched(asked).to_query())}")
        try:
            found = passport_of(asked.lower())
        except BrokerError:
            return self._unavailable(request)
        if found is not None:
            return redirect("admin:switchyard_jobs_job_change", found.id)
        return self._list(request, asked_id=asked)

    def _list(self, request: HttpRequest, *, asked_id: str = "", status: int = 200) -> HttpResponse:
        wanted, wrong, page = Filter(), "", JobsPage((), "")
        try:
            wanted = filter_of(request)
            if wanted.argument is not None and not self.has_arguments_permission(request):
                raise PermissionDenied("The missing right is switchyard_jobs.view_arguments.")
            arguments = self.has_arguments_permission(request)
            page = find_jobs(wanted, after=request.GET.get("after", ""), arguments=arguments)
        except ValueError as error:
            wrong, status = str(error), 400
        query = wanted.to_query()
        context = {
            "title": "Jobs",
            "is_fullwidth": "1",
            "page": page,
            "wrong": wrong,
            "form": context_of(wanted),
            "more_fields": [(name, label, (hint, query.get(name, ""))) for name, label, hint in MORE_FIELDS],
            "tones": TONES,
            "asked": asked_id,
            "asked_id": asked_id,
            "untracked": self._untracked(asked_id),
            "may_cancel": self.has_cancel_permission(request),
            "is_later": "after" in request.GET,
            "none_found": why_none_found(wanted.argument, wanted.actor),
            "newest": f"?{urlencode(query)}",
            "bulk_links": self._bulk_links(request, wanted),
            "older": f"?{urlencode(query | {'after': page.after})}",
        }
        return self._render(request, "switchyard_jobs/list.html", context, status)

    def _bulk_links(self, request: HttpRequest, wanted: Filter) -> list[tuple[str, str]]:
        """Return the acts on all jobs that match, with their addresses; none without a filter."""
        links = []
        if wanted and wants_unfinished(wanted) and self.has_cancel_permission(request):
            states = tuple(state for state in wanted.states if state in UNFINISHED)
            links.append(("Cancel all that have not ended…", "job.cancel", states))
        ended = tuple(state for state in wanted.states if state not in UNFINISHED)
        if wanted and (ended or not wanted.states) and self.has_run_permission(request):
            links.append(("Run all again that have ended…", "job.run_again", ended))
        return [
            (
                text,
                f"{reverse('switchyard-bulk-begin', args=[kind])}?{urlencode(replace(wanted, states=of).to_query())}",
            )
            for text, kind, of in links
        ]

    def _untracked(self, job_id: str) -> Any:
        try:
            return find_untracked(job_id.lower()) if job_id else None
        except BrokerError:
            return None  # the page says that the broker is away

    @UNCACHED
    def show_job(self, request: HttpRequest, job_id: str) -> HttpResponse:
        """Show one job."""
        self._check_view(request)
        try:
            job = passport_of(job_id)
        except BrokerError:
            return self._unavailable(request)
        if job is None:
            return self._list(request, asked_id=job_id[:100], status=404)
        context = {
            "title": job.actor,
            "subtitle": job.id,
            "is_fullwidth": "1",
            "has_events": can_stream(request),
            **self._context_of(request, job),
        }
        return self._render(request, "switchyard_jobs/passport.html", context)

    @method_decorator(require_safe)
    @UNCACHED
    def show_live(self, request: HttpRequest, job_id: str) -> HttpResponse:
        """Show the part of a job's page that changes."""
        self._check_view(request)
        try:
            job = passport_of(job_id)
        except BrokerError:
            return HttpResponse(AWAY, status=503, content_type="text/plain")
        if job is None:
            return HttpResponse(GONE, status=404, content_type="text/plain")
        return TemplateResponse(request, "switchyard_jobs/passport_live.html", self._context_of(request, job))

    def _context_of(self, request: HttpRequest, job: Passport) -> dict[str, Any]:
        return {
            "job": job,
            "picture": picture_of(job),
            "children": children_of(job),
            "tones": TONES,
            "may_cancel": not job.ended and not job.cancel_requested and self.has_cancel_permission(request),
            "may_run_again": self.has_run_permission(request),
        }

    @UNCACHED
    def cancel_job(self, request: HttpRequest, job_id: str) -> HttpResponse:
        """Ask whether to cancel a job, and request its cancellation when the answer is posted."""
        self._check_view(request)
        if not self.has_cancel_permission(request):
            raise PermissionDenied("The missing right is switchyard_jobs.cancel_job.")
        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponseNotAllowed(["GET", "POST"])
        try:
            if request.method != "POST":
                return self._ask_cancel(request, job_id)
            who, reason = Who.of_request(request), request.POST.get("reason", "").strip()
            answer = request_cancel(job_id, who=who, reason=reason) if is_job_id(job_id) else "unknown"
        except BrokerError:
            return self._unavailable(request)
        level, text = CANCEL_ANSWERS[answer]
        messages.add_message(request, level, text)
        return redirect("admin:switchyard_jobs_job_change", job_id)

    def _ask_cancel(self, request: HttpRequest, job_id: str) -> HttpResponse:
        job = passport_of(job_id)
        if job is None and self._untracked(job_id) is None:
            return self._list(request, asked_id=job_id[:100], status=404)
        if job is not None and job.ended:
            messages.add_message(request, *CANCEL_ANSWERS["ended"])
            return redirect("admin:switchyard_jobs_job_change", job_id)
        context = {"title": "Cancel job", "job": job, "job_id": job_id}
        return self._render(request, "switchyard_jobs/cancel.html", context)

    @method_decorator(sensitive_post_parameters())
    @UNCACHED
    def run_again(self, request: HttpRequest, job_id: str) -> HttpResponse:
        """Ask whether to run a job again, with its arguments to edit; enqueue it when the answer is posted."""
        self._check_view(request)
        if not self.has_run_permission(request):
            raise PermissionDenied("The missing right is switchyard_jobs.run_job.")
        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponseNotAllowed(["GET", "POST"])
        try:
            job = passport_of(job_id)
        except BrokerError:
            return self._unavailable(request)
        if job is None:
            return self._list(request, asked_id=job_id[:100], status=404)
        if request.method != "POST":
            text = json.dumps(job.arguments or {}, indent=2, ensure_ascii=False, default=str)
            return self._ask_again(request, job, text)
        text, reason = request.POST.get("arguments", ""), request.POST.get("reason", "").strip()
        new_id = request.POST.get("job_id", "")
        try:
            edited = _object_of(text) if self.has_arguments_permission(request) else None
            who = Who.of_request(request)
            sent = run_again(job, edited=edited, who=who, reason=reason, job_id=new_id if is_job_id(new_id) else "")
        except BrokerError as error:
            return self._ask_again(request, job, text, wrong=str(error), status=503)
        except DatabaseError:
            fact = "The audit log cannot be written, so nothing was enqueued; check /readyz, then try again."
            return self._ask_again(request, job, text, wrong=fact, status=503)
        except (SwitchyardError, MiddlewareError, ValueError) as error:
            return self._ask_again(request, job, text, wrong=str(error), status=422)
        messages.success(request, f"{job.actor} is enqueued again as job {sent}.")
        return redirect(job_url(sent))

    def _ask_again(
        self, request: HttpRequest, job: Passport, text: str, *, wrong: str = "", status: int = 200
    ) -> HttpResponse:
        context = {
            "title": f"Run {job.actor} again",
            "job": job,
            "text": text,
            "wrong": wrong,
            "reason": request.POST.get("reason", ""),
            "new_id": request.POST.get("job_id") or str(uuid.uuid4()),
        }
        return self._render(request, "switchyard_jobs/again.html", context, status)

    def _unavailable(self, request: HttpRequest) -> HttpResponse:
        messages.error(request, AWAY)
        return self._list(request, status=503)

    def _check_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _render(self, request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts}
        return TemplateResponse(request, template, {**shared, **context}, status=status)


def _object_of(text: str) -> dict[str, Any]:
    """Return the object of a JSON text.

    Raises:
        ValueError: it is none.
    """
    found = read_json(text)
    if not isinstance(found, dict):
        raise ValueError('write the arguments as an object, {"name": value}')  # noqa: TRY004  a form's mistake
    return found
