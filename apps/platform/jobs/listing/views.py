"""The list of jobs in the admin, and the search for one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from apps.platform.history.filters import Filter
from apps.platform.history.search_values import why_none_found
from apps.platform.jobs.admin_pages import AWAY, check, may, render
from apps.platform.jobs.listing.form import context_of, filter_of, searched
from apps.platform.jobs.listing.pages import JobsPage, find_jobs
from apps.platform.jobs.listing.unfinished import UNFINISHED, wants_unfinished
from apps.platform.jobs.passport.reading import TONES, passport_of
from apps.platform.jobs.queries import find_untracked, is_job_id
from broker.errors import BrokerError

# Fields below "Owner, tag, …": name, label, hint.
MORE_FIELDS = (
    ("owner", "Owner", "user:1"),
    ("tag", "Tag", "invoices"),
    ("error", "Error", "ValueError, or a part of its text"),
    ("fingerprint", "Fingerprint", "of a dead letter"),
    ("release", "Release", "2026.11.3"),
    ("until", "Until", "2026-11-21T13:00Z"),
)


def jobs(request: HttpRequest) -> HttpResponse:
    """Show the list of jobs, or redirect to the job or the filter that was searched for."""
    check(request)
    asked = (request.GET.get("id") or request.GET.get("q") or "").strip()[:200]
    if asked:
        return _searched(request, asked, only_id="id" in request.GET)
    return _list(request)


def without_job(request: HttpRequest, job_id: str) -> HttpResponse:
    """Return the list in place of a job that is not found, saying so."""
    return _list(request, asked_id=job_id[:100], status=404)


def without_broker(request: HttpRequest) -> HttpResponse:
    """Return the list while the broker is away, saying so."""
    messages.error(request, AWAY)
    return _list(request, status=503)


def untracked_job(job_id: str) -> Any:
    """Return the message of an unfinished job that keeps no record, or ``None``."""
    try:
        return find_untracked(job_id.lower()) if job_id else None
    except BrokerError:
        return None  # the page says that the broker is away


def _searched(request: HttpRequest, asked: str, *, only_id: bool) -> HttpResponse:
    if not is_job_id(asked.lower()) and not only_id:
        return redirect(f"{request.path}?{urlencode(searched(asked).to_query())}")
    try:
        found = passport_of(asked.lower())
    except BrokerError:
        return without_broker(request)
    if found is not None:
        return redirect("admin:switchyard_jobs_job_change", found.id)
    return _list(request, asked_id=asked)


def _list(request: HttpRequest, *, asked_id: str = "", status: int = 200) -> HttpResponse:
    wanted, wrong, page = Filter(), "", JobsPage((), "")
    try:
        wanted = filter_of(request)
        if wanted.argument is not None and not may(request, "view_arguments"):
            raise PermissionDenied("The missing right is switchyard_jobs.view_arguments.")
        page = find_jobs(wanted, after=request.GET.get("after", ""), arguments=may(request, "view_arguments"))
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
        "untracked": untracked_job(asked_id),
        "may_cancel": may(request, "cancel_job"),
        "is_later": "after" in request.GET,
        "none_found": why_none_found(wanted.argument, wanted.actor),
        "newest": f"?{urlencode(query)}",
        "bulk_links": _bulk_links(request, wanted),
        "older": f"?{urlencode(query | {'after': page.after})}",
    }
    return render(request, "switchyard_jobs/list.html", context, status)


def _bulk_links(request: HttpRequest, wanted: Filter) -> list[tuple[str, str]]:
    """Return the acts on all jobs that match, with their addresses; none without a filter."""
    links = []
    if wanted and wants_unfinished(wanted) and may(request, "cancel_job"):
        states = tuple(state for state in wanted.states if state in UNFINISHED)
        links.append(("Cancel all that have not ended…", "job.cancel", states))
    ended = tuple(state for state in wanted.states if state not in UNFINISHED)
    if wanted and (ended or not wanted.states) and may(request, "run_job"):
        links.append(("Run all again that have ended…", "job.run_again", ended))
    return [
        (
            text,
            f"{reverse('switchyard-bulk-begin', args=[kind])}?{urlencode(replace(wanted, states=of).to_query())}",
        )
        for text, kind, of in links
    ]
