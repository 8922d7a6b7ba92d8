"""The list of jobs in the admin, and the search for one."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode

import dramatiq
from django.contrib import messages
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_safe

from switchyard.broker.admin.scheduled import state_counts
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import ActRefused, BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_records import STEPS, Job
from switchyard.conf import declared_yard
from switchyard.console.export import export_of
from switchyard.console.formatting import choices
from switchyard.console.links import job_url
from switchyard.console.queue_rights import ARGUMENTS, holds
from switchyard.console.room_view import RoomResponse, require
from switchyard.history.filters import Filter, why_none_found
from switchyard.history.queries import find_many, why_missing
from switchyard.jobs.listing.pages import LIMIT, UNFINISHED, JobsPage, find_jobs, is_by_due_time, wants_unfinished
from switchyard.jobs.presentation import TONES, job_json, passport_of
from switchyard.jobs.queries import (
    answering_families,
    families,
    find_untracked,
    holder_of_key,
    is_job_id,
    records_of,
    written_id,
)

VIEW, CANCEL, RUN = (f"switchyard_jobs.{verb}_job" for verb in ("view", "cancel", "run"))
AWAY: Final = "The broker does not answer, so jobs cannot be shown; check /readyz, then try again."
# The first page of a list is read at most so often for all who look at it, and takes at most a twentieth of the time.
LEAST_AGE_S: Final = 2.0
AGE_PER_COST: Final = 20
MOST_KEPT: Final = 64
# Acts on ticked jobs: button, bulk act, right, and whether it is for jobs that have ended.
CHOSEN_ACTS: Final = (
    ("Run chosen again…", "job.run_chosen_again", RUN, True),
    ("Cancel chosen…", "job.cancel_chosen", CANCEL, False),
)
# The history has a job some seconds after its end: one that ended before the page was made may come after it.
LATE_MS: Final = 10_000
# Jobs of one page of an export.
EXPORTED: Final = 500


def changes_of(wanted: Filter, shown: Sequence[str], *, shown_at: int) -> dict[str, Any]:
    """Return what has changed in a list of the jobs ``shown``, which was made at a time (ms), for its template.

    ``jobs`` are those that are shown, as they stand, but one that nobody knows any longer; ``new_count`` came since,
    among those of a first page, of which ``more`` follow; ``is_away`` says that broker or database did not answer.
    """
    page = fresh_page(wanted)
    jobs = {job.id: job for job in page.jobs}
    others, is_away = _jobs_of([id_ for id_ in shown if id_ not in jobs])
    # Of a list that was cut, older jobs move up when others leave it.
    since = shown_at - LATE_MS if len(shown) >= LIMIT else 0
    new = [job for job in page.jobs if job.id not in shown and max(job.at, job.started_at or 0) >= since]
    jobs |= others
    return {
        "jobs": [jobs[id_] for id_ in shown if id_ in jobs],
        "new_count": len(new),
        "more": bool(new and page.after) and new[-1] is page.jobs[-1],
        "is_away": is_away or bool(page.broker_error or page.history_error),
    }


@dataclass(slots=True)
class _Kept:
    page: JobsPage | None = None
    until_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


@lru_cache(maxsize=MOST_KEPT)
def _kept(wanted: Filter) -> _Kept:
    return _Kept()


def fresh_page(wanted: Filter) -> JobsPage:
    """Return the first page of a list, read once for all requests within 2 s, or 20 times its duration."""
    kept = _kept(wanted)
    with kept.lock:
        began = time.monotonic()
        if kept.page is None or began >= kept.until_s:
            kept.page = find_jobs(wanted)
            ended = time.monotonic()
            kept.until_s = ended + max(LEAST_AGE_S, AGE_PER_COST * (ended - began))
        return kept.page


def _jobs_of(ids: list[str]) -> tuple[dict[str, Job], bool]:
    """Return jobs by their ids: from the broker, once they have ended from the history; and whether one was away."""
    away = False
    try:
        jobs = records_of(ids)
    except BrokerError:
        jobs, away = {}, True
    try:
        jobs |= find_many([id_ for id_ in ids if id_ not in jobs or jobs[id_].ended])
    except DatabaseError:
        away = True
    return jobs, away


# Fields below "Owner, tag, …": name, label, hint.
MORE_FIELDS = (
    ("owner", "Owner", "user:1"),
    ("parent", "Parent", "id of the job that sent it"),
    ("tag", "Tag", "invoices"),
    ("error", "Error", "ValueError, or a part of its text"),
    ("fingerprint", "Fingerprint", "of a dead letter"),
    ("release", "Release", "2026.11.3"),
    ("waited", "Waited, ms", "5000-20000"),
    ("ran", "Ran, ms", "60000-"),
    ("until", "Until", "2026-11-21T13:00Z"),
)
# Digits of a time in ms since the epoch.
LONGEST_TIME = 15


def jobs(request: HttpRequest) -> HttpResponse:
    """Show the list of jobs, or redirect to the job or the filter that was searched for."""
    require(request, VIEW)
    asked = (request.GET.get("id") or request.GET.get("q") or "").strip()[:200]
    if asked:
        return _searched(request, asked, only_id="id" in request.GET)
    arguments = holds(request.user, ARGUMENTS, request.GET.get("queue", ""))
    return export_of(request, "jobs", lambda: _exported(_wanted(request), arguments=arguments)) or _list(request)


def _exported(wanted: Filter, *, arguments: bool) -> Iterator[dict[str, Any]]:
    """Yield the jobs that match, in the order of the list.

    Raises:
        ActRefused: broker or database do not answer.
    """
    after = ""
    while True:
        page = find_jobs(wanted, after=after, limit=EXPORTED)
        if page.broker_error or page.history_error:
            raise ActRefused("export", "the broker or the database cannot be read; try again once it can")
        yield from (job_json(job, arguments=arguments) for job in page.jobs)
        if not (after := page.after):
            return


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """Show what has changed in a list: ``shown`` are the ids of its jobs, ``shown_at`` is when it was made (ms)."""
    require(request, VIEW)
    shown = [id_ for id_ in request.GET.get("shown", "").split(",") if id_]
    at = request.GET.get("shown_at", "")
    try:
        if len(shown) > LIMIT or not at.isdecimal() or len(at) > LONGEST_TIME:
            raise ValueError(f"shown: write at most {LIMIT} ids with commas, and shown_at, a time in ms")
        wanted = _wanted(request)
    except ValueError as error:
        return HttpResponse(str(error), status=400, content_type="text/plain")
    context = {
        "changes": changes_of(wanted, shown, shown_at=int(at)),
        "by_due_time": is_by_due_time(wanted),
        **_rows_context(request, wanted),
    }
    return RoomResponse(request, "switchyard_jobs/list_live.html", context)


def _rows_context(request: HttpRequest, wanted: Filter) -> dict[str, Any]:
    return {
        "tones": TONES,
        "may_cancel": holds(request.user, CANCEL, wanted.queue or None),
        "may_run": holds(request.user, RUN, wanted.queue or None),
        "acts_on": wanted.queue,
    }


def without_job(request: HttpRequest, job_id: str) -> HttpResponse:
    """Return the list in place of a job that is not found, saying so."""
    return _list(request, asked_id=job_id[:100], status=404)


def without_broker(request: HttpRequest) -> HttpResponse:
    """Return the list while the broker is away, saying so."""
    messages.error(request, AWAY)
    return _list(request, status=503)


def known_of(read: Callable[[str], Any], job_id: str) -> Any:
    """Return what the broker knows of an id; ``None`` for "", and while it is away, which the page says."""
    with suppress(BrokerError):
        return read(written_id(job_id)) if job_id else None
    return None


def _searched(request: HttpRequest, asked: str, *, only_id: bool) -> HttpResponse:
    job_id, found = written_id(asked), None
    is_id = only_id or is_job_id(job_id)
    try:
        found = passport_of(job_id)
    except BrokerError:
        if is_id:
            return without_broker(request)
    if found is not None and (address := job_url(job_id)):
        return redirect(address)
    if not is_id:
        return redirect(f"{request.path}?{urlencode(searched(asked).to_query())}")
    return _list(request, asked_id=asked)


def _list(request: HttpRequest, *, asked_id: str = "", status: int = 200) -> HttpResponse:
    wanted, wrong, page, shown_at = Filter(), "", JobsPage((), ""), now_ms()
    try:
        wanted = _wanted(request)
        page = find_jobs(wanted, after=request.GET.get("after", ""))
    except ValueError as error:
        wrong, status = str(error), 400
    query, counts = wanted.to_query(), _counts()
    queues = [each.name for each in declared_yard().queues]
    is_later = "after" in request.GET
    is_live = not (is_later or wrong or asked_id)
    watched = {**query, "shown_at": shown_at, "shown": ",".join(job.id for job in page.jobs)}
    context = {
        "title": "Jobs",
        "live_url": f"{reverse('switchyard-jobs-live')}?{urlencode(watched, safe=',')}" if is_live else "",
        "page": page,
        "by_due_time": page.by_due_time,
        "wrong": wrong,
        "form": {
            "query": query,
            "words": [f"{name} {value}"[:60] for name, value in query.items() if name != "failures"]
            + ["failures, retried ones too"] * wanted.failures,
            "periods": choices(PERIODS, wanted.since),
            "states": choices((("", "any"), *((state, state) for state in STEPS)), query.get("state", "")),
            "queues": choices((("", "any"), *((each, each) for each in queues)), wanted.queue),
            "actors": sorted(dramatiq.get_broker().actors),
            "presets": [
                (text, f"?{urlencode(preset)}", preset == query, counts.get(preset.get("state", "")))
                for text, preset in PRESETS
            ],
            "more_open": any(query.get(name) for name, _, _ in MORE_FIELDS),
        },
        "more_fields": [(name, label, (hint, query.get(name, ""))) for name, label, hint in MORE_FIELDS],
        "asked_id": asked_id,
        "untracked": known_of(find_untracked, asked_id),
        "stand_in": known_of(holder_of_key, asked_id),
        **_rows_context(request, wanted),
        "chosen_acts": _chosen_acts(request, page),
        "none_found": why_none_found(wanted.argument, wanted.actor),
        "is_later": is_later,
        "missing": "" if page.broker_error or page.history_error else why_missing(),
        "newest": f"?{urlencode(query)}",
        "bulk_links": _bulk_links(request, wanted),
        "older": f"?{urlencode(query | {'after': page.after})}",
    }
    return RoomResponse(request, "switchyard_jobs/list.html", context, status=status)


def _counts() -> dict[str, int]:
    """Return the unfinished jobs by state; none while the broker is away, which the page says."""
    with suppress(BrokerError):
        return state_counts(answering_families(), facilities().records) if families() else {}
    return {}


def _wanted(request: HttpRequest) -> Filter:
    """Return the filter in the address.

    Raises:
        ValueError: it is unusable.
        PermissionDenied: it filters by an argument, and the user may not view arguments.
    """
    wanted = Filter.from_query(request.GET, ignore=PAGE_NAMES)
    if wanted.argument is not None:
        require(request, VIEW, ARGUMENTS, queue=wanted.queue)
    return wanted


def _chosen_acts(request: HttpRequest, page: JobsPage) -> list[tuple[str, str, bool]]:
    """Return the acts on ticked jobs that a user may do to one of a page: button, address, whether it ends work."""
    shown = {(job.queue, job.ended) for job in page.jobs}
    return [
        (text, reverse("switchyard-bulk-begin", args=[kind]), kind == "job.cancel_chosen")
        for text, kind, right, of_ended in CHOSEN_ACTS
        if any(ended == of_ended and holds(request.user, right, queue) for queue, ended in shown)
    ]


def _bulk_links(request: HttpRequest, wanted: Filter) -> list[tuple[str, str, bool]]:
    """Return the acts on all jobs that match, with address, and whether they end work; none without a filter."""
    live = tuple(state for state in wanted.states if state in UNFINISHED)
    ended = tuple(state for state in wanted.states if state not in UNFINISHED)
    links = []
    for text, kind, right, states, fits in (
        ("Run all again that have ended…", "job.run_again", RUN, ended, ended or not wanted.states),
        ("Cancel all that have not ended…", "job.cancel", CANCEL, live, wants_unfinished(wanted)),
    ):
        if wanted and fits and holds(request.user, right, wanted.queue):
            query = urlencode(replace(wanted, states=states).to_query())
            links.append((text, f"{reverse('switchyard-bulk-begin', args=[kind])}?{query}", kind == "job.cancel"))
    return links


PERIODS: Final = (
    ("", "any time"),
    ("15m", "last 15 min"),
    ("1h", "last hour"),
    ("1d", "last 24 h"),
    ("7d", "last 7 days"),
)
PRESETS: Final = (
    ("Last hour's failures, retried ones too", {"failures": "1", "since": "1h"}),
    ("Running", {"state": "running"}),
    ("Waiting", {"state": "queued"}),
    ("Scheduled", {"state": "scheduled"}),
    ("Waiting for a retry", {"state": "retrying"}),
    ("Given up in the last 24 h", {"state": "dead", "since": "1d"}),
    ("Cancelled or expired", {"state": "cancelled,expired"}),
)
# Names in the address that are no filter.
PAGE_NAMES: Final = ("after", "limit", "q", "id", "shown", "shown_at", "export")


def searched(text: str) -> Filter:
    """Return the filter for a text of the search box: a queue, an actor, an argument as ``name=value``, or an error."""
    name, equals, value = text.partition("=")
    if equals and name.strip():
        return Filter(argument=(name.strip(), value.strip()))
    if text in {queue.name for queue in declared_yard().queues}:
        return Filter(queue=text)
    if text in dramatiq.get_broker().actors:
        return Filter(actor=text)
    return Filter(error=text)
