"""Pages of one job in the admin: its page, the part of it that changes, its events, and the acts on it.

Running it now asks nothing; the others ask on GET: cancel it, run it again, requeue its edited letter.
"""

import json
import uuid
from collections.abc import Callable
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from dramatiq.middleware import MiddlewareError

from switchyard.api.problems import Problem
from switchyard.audit.services import Who
from switchyard.broker.admin.scheduled import HELD
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError, SwitchyardError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_record import Job
from switchyard.console.links import admin_site, job_url
from switchyard.console.queue_rights import ARGUMENTS, holds
from switchyard.console.room_view import RoomResponse, require, room_view
from switchyard.dead_letters.queries import letter_of_key
from switchyard.jobs import live as streams
from switchyard.jobs.calls import read_json
from switchyard.jobs.listing.views import AWAY, CANCEL, RUN, VIEW, known_of, without_broker, without_job
from switchyard.jobs.passport.again import requeue_edited, run_again
from switchyard.jobs.passport.timeline import acts_on, picture_of, timeline_of
from switchyard.jobs.passport.why import Why, why, why_json
from switchyard.jobs.presentation import (
    GOOD_OUTCOMES,
    OUTCOMES,
    TONES,
    Passport,
    passport_json,
    passport_of,
    public_result,
)
from switchyard.jobs.queries import find_known, find_untracked, is_job_id, is_message_id, running_or_none
from switchyard.jobs.services import request_cancel, start_now
from switchyard.payload import shown_arguments

GONE: Final = "No job has this id, or its record and its history have expired."
NO_STREAMS: Final = (
    "Django runs under WSGI here, where a stream would block a thread; serve it by ASGI, or poll the page."
)


def passport(request: HttpRequest, job_id: str) -> HttpResponse:
    require(request, VIEW)
    try:
        known = passport_of(job_id)
    except BrokerError:
        return without_broker(request)
    if known is None:
        return without_job(request, job_id)
    if request.GET.get("format") == "json":
        shown = passport_json(known, arguments=holds(request.user, ARGUMENTS, known.job.queue))
        found = _why(request, known)
        shown["why"] = None if found is None else why_json(found)
        return JsonResponse(shown, json_dumps_params={"indent": 2, "ensure_ascii": False})
    context = {"title": known.job.actor, "subtitle": known.job.id, "has_events": isinstance(request, ASGIRequest)}
    context |= _context_of(request, known)
    return RoomResponse(request, "switchyard_jobs/passport.html", context)


@require_safe
def live(request: HttpRequest, job_id: str) -> HttpResponse:
    """Show the part of a job's page that changes."""
    require(request, VIEW)
    try:
        known = passport_of(job_id)
    except BrokerError:
        return HttpResponse(AWAY, status=503, content_type="text/plain")
    if known is None:
        return HttpResponse(GONE, status=404, content_type="text/plain")
    return RoomResponse(request, "switchyard_jobs/passport_live.html", _context_of(request, known))


async def events(request: HttpRequest, job_id: str) -> HttpResponseBase:
    """Follow a job as server-sent events up to its end, for a user who may view jobs.

    429 and 503 beyond the limits of open streams.
    """
    admitted: list[str] = []

    def admit(request: HttpRequest) -> HttpResponse:
        require(request, VIEW)
        admitted.append(f"user:{request.user.pk}")
        return HttpResponse()

    def allowed() -> bool:
        user = get_user_model().objects.filter(pk=admitted[0].removeprefix("user:")).first()
        if user is None or not user.has_perm(VIEW):  # an inactive one has no rights
            return False
        held: Any = request.user
        held.refresh_from_db()  # in place: a second factor is noted on it
        return admin_site().has_permission(request)

    refusal: HttpResponseBase = await sync_to_async(room_view(admit))(request)
    if not admitted:
        return refusal
    if not isinstance(request, ASGIRequest):
        return HttpResponse(NO_STREAMS, status=501, content_type="text/plain")
    try:
        job = await sync_to_async(find_known)(job_id)
        if job is None:
            return HttpResponse(GONE, status=404, content_type="text/plain")
        return await streams.answer(request, job, caller=admitted[0], allowed=allowed)
    except Problem as problem:
        return problem.response()
    except (BrokerError, DatabaseError):
        return HttpResponse(AWAY, status=503, content_type="text/plain", headers=streams.RETRY_AFTER)


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
        "may_cancel": not job.ended and not job.cancel_requested and holds(request.user, CANCEL, job.queue),
        "may_run_again": holds(request.user, RUN, job.queue),
        "acts_on": job.queue,
        "may_run_now": _can_run_now(job) and holds(request.user, RUN, job.queue),
        "why": found,
    }


def _can_run_now(job: Job) -> bool:
    """Return whether a job waits for a time that an operator can bring forward."""
    waits = job.state in ("scheduled", "retrying") and (job.next_attempt_at or 0) > now_ms()
    return waits and job.reason not in HELD and facilities().transport.finds_waiting


def _why(request: HttpRequest, known: Passport) -> Why | None:
    """Return why a job has not run; ``None`` once it has ended, and while the broker does not answer."""
    try:
        return why(known, arguments=holds(request.user, ARGUMENTS, known.job.queue))
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


METHODS = ["GET", "HEAD", "POST"]
LOST = "The audit log cannot be written, so nothing was {}; check /readyz, then try again."


@require_http_methods(METHODS)
def cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    """Ask whether to cancel a job, and request its cancellation when the answer is posted."""
    require(request, VIEW, CANCEL)
    if request.method == "POST":
        return _do(request, job_id, request_cancel)
    try:
        known = passport_of(job_id)
    except BrokerError:
        return without_broker(request)
    job = None if known is None else known.job
    if job is None and known_of(find_untracked, job_id) is None:
        return without_job(request, job_id)
    if job is not None and job.ended:
        _say(request, "ended")
        return redirect("switchyard-job", job_id)
    context = {"title": "Cancel job", "job": job, "job_id": job_id}
    return RoomResponse(request, "switchyard_jobs/cancel.html", context)


@require_POST
def run_now(request: HttpRequest, job_id: str) -> HttpResponse:
    """Make a scheduled job, or one that waits for its retry, due at once."""
    require(request, VIEW, RUN)
    return _do(request, job_id, start_now)


def _do(request: HttpRequest, job_id: str, act: Callable[..., str]) -> HttpResponse:
    answer = "unknown"
    try:
        if is_message_id(job_id):
            answer = act(job_id, who=Who.of_request(request), reason=_reason(request))
    except BrokerError:
        return without_broker(request)
    except DatabaseError:
        messages.error(request, LOST.format("changed"))
    else:
        _say(request, answer)
    return redirect("switchyard-job", job_id)


def _say(request: HttpRequest, answer: str) -> None:
    level = messages.SUCCESS if answer in GOOD_OUTCOMES else messages.WARNING
    messages.add_message(request, level, f"The job {OUTCOMES[answer]}.")


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()


@require_http_methods(METHODS)
@sensitive_post_parameters()
def again(request: HttpRequest, job_id: str) -> HttpResponse:
    """Ask whether to run a job again, with its arguments to edit; enqueue it when the answer is posted."""
    require(request, VIEW, RUN)
    try:
        known = passport_of(job_id)
    except BrokerError:
        return without_broker(request)
    if known is None:
        return without_job(request, job_id)
    job = known.job
    if request.method != "POST":
        return _ask_again(request, job, json.dumps(known.arguments or {}, indent=2, ensure_ascii=False, default=str))
    text, new_id = request.POST.get("arguments", ""), request.POST.get("job_id", "")
    try:
        edited = _object_of(text) if holds(request.user, ARGUMENTS, job.queue) else None
        who, new_id = Who.of_request(request), new_id if is_job_id(new_id) else ""
        sent = run_again(known, edited=edited, who=who, reason=_reason(request), job_id=new_id)
    except BrokerError as error:
        return _ask_again(request, job, text, wrong=str(error), status=503)
    except DatabaseError:
        return _ask_again(request, job, text, wrong=LOST.format("enqueued"), status=503)
    except (SwitchyardError, MiddlewareError, ValueError) as error:
        return _ask_again(request, job, text, wrong=str(error), status=422)
    messages.success(request, f"{job.actor} is enqueued again as job {sent}.")
    return redirect(job_url(sent))


def _ask_again(request: HttpRequest, job: Job, text: str, *, wrong: str = "", status: int = 200) -> HttpResponse:
    context = {
        "title": f"Run {job.actor} again",
        "job": job,
        "text": text,
        "wrong": wrong,
        "reason": request.POST.get("reason", ""),
        "new_id": request.POST.get("job_id") or str(uuid.uuid4()),
        "acts_on": job.queue,
    }
    return RoomResponse(request, "switchyard_jobs/again.html", context, status=status)


@require_http_methods(METHODS)
@sensitive_post_parameters()
def edit_letter(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the arguments of a job's dead letter in a form, and requeue it with the edited values."""
    require(request, "switchyard_dead_letters.requeue_deadletter", "switchyard_dead_letters.view_deadletter")
    row = letter_of_key(pk)
    require(request, ARGUMENTS, queue=row.queue)
    text, wrong, status = request.POST.get("arguments", ""), "", 200
    back = reverse("switchyard-letter", args=[pk])
    try:
        letter = facilities().transport.find_dead_letter(row.queue, row.message_id)
        if letter is None:
            messages.warning(request, "Its arguments cannot be edited: the broker's dead list no longer holds it.")
            return redirect(back)
        if request.method == "POST":
            who, reason = Who.of_request(request), _reason(request)
            refused = requeue_edited(row, letter, _object_of(text), who=who, reason=reason)
            sentence = refused or f"Requeued {row} to {row.queue}."
            (messages.warning if refused else messages.success)(request, sentence)
            return redirect(back)
        shown = shown_arguments(letter.actor, letter.message["args"], letter.message["kwargs"])
        text = json.dumps(shown, indent=2, ensure_ascii=False)
    except BrokerError:
        wrong, status = "The broker does not answer, and holds the arguments. Reload the page when it is back.", 503
    except (SwitchyardError, ValueError) as error:
        wrong, status = f"Nothing was done. {error}", 400
    context = {
        "title": "Edit and requeue", "row": row, "text": text,
        "wrong": wrong, "back": back, "reason": request.POST.get("reason", ""),
    }  # fmt: skip
    return RoomResponse(request, "switchyard_jobs/edit_letter.html", context, status=status)


def _object_of(text: str) -> dict[str, Any]:
    """Return the object of a JSON text; ``ValueError`` where it is none."""
    found = read_json(text)
    if not isinstance(found, dict):
        raise ValueError('write the arguments as an object, {"name": value}')  # noqa: TRY004  a form's mistake
    return found
