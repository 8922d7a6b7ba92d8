"""A job's page in the admin, and the part of it that changes."""

from __future__ import annotations

import json
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from switchyard.broker.admin.scheduled import HELD
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_record import Job
from switchyard.console.room_view import RoomResponse
from switchyard.jobs.admin_pages import AWAY, GONE, can_stream, check, may
from switchyard.jobs.listing.views import without_broker, without_job
from switchyard.jobs.passport.reading import TONES, Passport, passport_json, passport_of
from switchyard.jobs.passport.timeline import acts_on, picture_of, timeline_of
from switchyard.jobs.passport.why import Why, why, why_json
from switchyard.jobs.presentation import public_result
from switchyard.jobs.queries import running_or_none


def passport(request: HttpRequest, job_id: str) -> HttpResponse:
    check(request)
    try:
        known = passport_of(job_id)
    except BrokerError:
        return without_broker(request)
    if known is None:
        return without_job(request, job_id)
    if request.GET.get("format") == "json":
        shown = passport_json(known, arguments=may(request, "view_arguments", known.job.queue))
        found = _why(request, known)
        shown["why"] = None if found is None else why_json(found)
        return JsonResponse(shown, json_dumps_params={"indent": 2, "ensure_ascii": False})
    job = known.job
    context = {"title": job.actor, "subtitle": job.id, "has_events": can_stream(request), **_context_of(request, known)}
    return RoomResponse(request, "switchyard_jobs/passport.html", context)


@require_safe
def live(request: HttpRequest, job_id: str) -> HttpResponse:
    """Show the part of a job's page that changes."""
    check(request)
    try:
        known = passport_of(job_id)
    except BrokerError:
        return HttpResponse(AWAY, status=503, content_type="text/plain")
    if known is None:
        return HttpResponse(GONE, status=404, content_type="text/plain")
    return RoomResponse(request, "switchyard_jobs/passport_live.html", _context_of(request, known))


def _context_of(request: HttpRequest, known: Passport) -> dict[str, Any]:
    job, result = known.job, public_result(known.job.result)
    found = _why(request, known)
    acts = acts_on(job) if request.user.has_perm("switchyard_audit.view_auditentry") else ()
    return {
        "job": job,
        "known": known,
        "result": "" if result is None else json.dumps(result, indent=2, ensure_ascii=False),
        "picture": picture_of(known),
        "children": children_of(known),
        "events": timeline_of(known, acts),
        "tones": TONES,
        "may_cancel": not job.ended and not job.cancel_requested and may(request, "cancel_job", job.queue),
        "may_run_again": may(request, "run_job", job.queue),
        "acts_on": job.queue,
        "may_run_now": _can_run_now(job) and may(request, "run_job", job.queue),
        "why": found,
        "silent": None if found is None else found.silent,
    }


def _can_run_now(job: Job) -> bool:
    """Return whether a job waits for a time that an operator can bring forward."""
    waits = job.state in ("scheduled", "retrying") and (job.next_attempt_at or 0) > now_ms()
    return waits and job.reason not in HELD and facilities().transport.finds_waiting


def _why(request: HttpRequest, known: Passport) -> Why | None:
    """Return why a job has not run; ``None`` once it has ended, and while the broker does not answer."""
    try:
        return why(known, arguments=may(request, "view_arguments", known.job.queue))
    except (BrokerError, DatabaseError):
        return None


def children_of(known: Passport) -> dict[str, Any]:
    """Return the children of a job, and whether those that run are missing, because the broker did not answer.

    Those that run come first, the longest one before the others; then those that ended or are retried, the newest
    first. Those that wait for their first start are not among them: no index of the broker finds them.
    """
    running = running_or_none(parent=known.job.id)
    ids = {each.id for each in running or ()}
    return {
        "shown": [*(running or ()), *(each for each in known.children if each.id not in ids)],
        "broker_away": running is None,
    }
