"""A job's page in the admin, and the part of it that changes."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from switchyard.broker.admin.scheduled import HELD
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.console.room_view import RoomResponse
from switchyard.jobs.admin_pages import AWAY, GONE, can_stream, check, may
from switchyard.jobs.listing.views import without_broker, without_job
from switchyard.jobs.passport.reading import TONES, Passport, as_json, passport_of
from switchyard.jobs.passport.timeline import acts_on, picture_of, timeline_of
from switchyard.jobs.pauses import PausedActor, pause_of
from switchyard.jobs.queries import running_jobs, silent_holder


@never_cache
def passport(request: HttpRequest, job_id: str) -> HttpResponse:
    """Show one job."""
    check(request)
    try:
        job = passport_of(job_id)
    except BrokerError:
        return without_broker(request)
    if job is None:
        return without_job(request, job_id)
    if request.GET.get("format") == "json":
        shown = as_json(job, arguments=may(request, "view_arguments"))
        return JsonResponse(shown, json_dumps_params={"indent": 2, "ensure_ascii": False})
    context = {"title": job.actor, "subtitle": job.id, "has_events": can_stream(request), **_context_of(request, job)}
    return RoomResponse(request, "switchyard_jobs/passport.html", context)


@require_safe
@never_cache
def live(request: HttpRequest, job_id: str) -> HttpResponse:
    """Show the part of a job's page that changes."""
    check(request)
    try:
        job = passport_of(job_id)
    except BrokerError:
        return HttpResponse(AWAY, status=503, content_type="text/plain")
    if job is None:
        return HttpResponse(GONE, status=404, content_type="text/plain")
    return RoomResponse(request, "switchyard_jobs/passport_live.html", _context_of(request, job))


def _context_of(request: HttpRequest, job: Passport) -> dict[str, Any]:
    return {
        "job": job,
        "picture": picture_of(job),
        "children": children_of(job),
        "events": timeline_of(job, acts_on(job) if request.user.has_perm("switchyard_audit.view_auditentry") else ()),
        "tones": TONES,
        "may_cancel": not job.ended and not job.cancel_requested and may(request, "cancel_job"),
        "may_run_again": may(request, "run_job"),
        "may_edit": _can_edit(request, job),
        "may_run_now": _can_run_now(job) and may(request, "run_job"),
        "pause": _pause_of(job),
        "silent": silent_holder(job.id, job.queue) if job.state in ("queued", "running", "retrying") else None,
    }


def _can_run_now(job: Passport) -> bool:
    """Return whether a job waits for a time that an operator can bring forward."""
    waits = job.state in ("scheduled", "retrying") and job.due_at is not None and job.due_at > now_ms()
    return waits and job.reason not in HELD and facilities().transport.finds_waiting


def _pause_of(job: Passport) -> PausedActor | None:
    """Return the pause that keeps a job from starting."""
    if job.ended or job.state == "running":
        return None
    try:
        return pause_of(job.actor, job.arguments)
    except BrokerError:
        return None


def _can_edit(request: HttpRequest, job: Passport) -> bool:
    """Return whether a user may change a job that has not started: its arguments, or when it is due."""
    has_not_started = job.state in ("queued", "scheduled", "retrying") and not job.cancel_requested
    has_right = may(request, "run_job") and (may(request, "view_arguments") or job.state == "scheduled")
    return has_not_started and has_right and facilities().transport.finds_waiting


class ChildJob(NamedTuple):
    """A job that another one sent; ``ran_ms`` is the time for which it ran, or runs."""

    id: str
    actor: str
    state: str
    ran_ms: int | None


def children_of(job: Passport) -> dict[str, Any]:
    """Return the children of a job, and whether those that run are missing, because the broker did not answer.

    Those that run come first, the longest one before the others; then those that ended or are retried, the newest
    first. Those that wait for their first start are not among them: no index of the broker finds them.
    """
    away = False
    try:
        running = [ChildJob(each.id, each.actor, "running", each.ran_ms) for each in running_jobs(parent=job.id)]
    except BrokerError:
        running, away = [], True
    ids = {each.id for each in running}
    stored = [ChildJob(row.job_id, row.actor, row.state, row.run_ms) for row in job.children if row.job_id not in ids]
    return {"shown": (*running, *stored), "broker_away": away}
