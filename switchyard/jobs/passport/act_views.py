"""Acts on one job in the admin: run it now; after a question, cancel it, run it again, or requeue its edited letter."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST
from dramatiq.middleware import MiddlewareError

from switchyard.audit.services import Who
from switchyard.broker.errors import BrokerError, SwitchyardError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_records import Job
from switchyard.console.links import job_url
from switchyard.console.room_view import RoomResponse, require
from switchyard.dead_letters.queries import letter_of_key
from switchyard.jobs.admin_pages import check, may
from switchyard.jobs.calls import read_json
from switchyard.jobs.listing.views import untracked_job, without_broker, without_job
from switchyard.jobs.passport.again import requeue_edited, run_again
from switchyard.jobs.passport.reading import passport_of
from switchyard.jobs.presentation import GOOD_OUTCOMES, OUTCOMES, shown_arguments
from switchyard.jobs.queries import is_job_id, is_message_id
from switchyard.jobs.services import request_cancel, start_now

METHODS = ["GET", "HEAD", "POST"]
LOST = "The audit log cannot be written, so nothing was {}; check /readyz, then try again."


@require_http_methods(METHODS)
def cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    """Ask whether to cancel a job, and request its cancellation when the answer is posted."""
    check(request, "cancel_job")
    try:
        if request.method != "POST":
            return _ask_cancel(request, job_id)
        return _do(request, job_id, request_cancel)
    except BrokerError:
        return without_broker(request)


@require_POST
def run_now(request: HttpRequest, job_id: str) -> HttpResponse:
    """Make a scheduled job, or one that waits for its retry, due at once."""
    check(request, "run_job")
    try:
        return _do(request, job_id, start_now)
    except BrokerError:
        return without_broker(request)


def _do(request: HttpRequest, job_id: str, act: Callable[..., str]) -> HttpResponse:
    answer = "unknown"
    try:
        if is_message_id(job_id):
            answer = act(job_id, who=Who.of_request(request), reason=_reason(request))
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


def _ask_cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    known = passport_of(job_id)
    job = None if known is None else known.job
    if job is None and untracked_job(job_id) is None:
        return without_job(request, job_id)
    if job is not None and job.ended:
        _say(request, "ended")
        return redirect("switchyard-job", job_id)
    context = {"title": "Cancel job", "job": job, "job_id": job_id}
    return RoomResponse(request, "switchyard_jobs/cancel.html", context)


@require_http_methods(METHODS)
@sensitive_post_parameters()
def again(request: HttpRequest, job_id: str) -> HttpResponse:
    """Ask whether to run a job again, with its arguments to edit; enqueue it when the answer is posted."""
    check(request, "run_job")
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
        edited = _object_of(text) if may(request, "view_arguments", job.queue) else None
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
    require(request, "switchyard_jobs.view_arguments", queue=row.queue)
    text, wrong, status = request.POST.get("arguments", ""), "", 200
    back = reverse("switchyard-letter", args=[pk])
    try:
        letter = facilities().transport.find_dead_letter(row.queue, row.message_id)
        if letter is None:
            messages.warning(request, "Its arguments cannot be edited: the broker's dead list no longer holds it.")
            return redirect(back)
        if request.method == "POST":
            result = requeue_edited(row, letter, _object_of(text), who=Who.of_request(request), reason=_reason(request))
            (messages.success if result.done else messages.warning)(request, result.message)
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
