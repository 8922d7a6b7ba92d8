"""Acts on one job in the admin: run it now; after a question, cancel it or run it again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from django.contrib import messages
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST
from dramatiq.middleware import MiddlewareError

from switchyard.audit.services import Who
from switchyard.broker.errors import ActRefused, ArgumentsRefused, BrokerError, SwitchyardError
from switchyard.console.links import job_url
from switchyard.jobs.admin_pages import check, may
from switchyard.jobs.calls.arguments import read_json
from switchyard.jobs.listing.views import untracked_job, without_broker, without_job
from switchyard.jobs.passport.again import run_again
from switchyard.jobs.passport.editing import EditableJob, due_time, edit_job, editable_job, words_of
from switchyard.jobs.passport.reading import Passport, passport_of
from switchyard.jobs.queries import is_job_id, is_message_id
from switchyard.jobs.services import request_cancel, start_now

CANCEL_ANSWERS = {
    "cancelled": (messages.SUCCESS, "Cancelled. The job will not start."),
    "asked": (messages.SUCCESS, "Cancellation requested. The job is running and stops within 10 seconds."),
    "ended": (messages.WARNING, "The job has ended already; there is nothing to cancel."),
    "unknown": (messages.ERROR, "No job has this id any longer. One without a record may have ended."),
}
RUN_NOW_ANSWERS = {
    "due": (messages.SUCCESS, "The job is due now: it starts as soon as a slot is free."),
    "waiting": (messages.WARNING, "The job waits or runs already; nothing was changed."),
    "held": (messages.WARNING, "A rate limit holds the job, or no worker knows its actor; nothing was changed."),
    "ended": (messages.WARNING, "The job has ended already; to repeat it, run it again."),
    "unknown": (messages.ERROR, "No job has this id any longer, or this broker cannot find a delayed one."),
}
METHODS = ["GET", "HEAD", "POST"]
LOST = "The audit log cannot be written, so nothing was {}; check /readyz, then try again."


@require_http_methods(METHODS)
@never_cache
def cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    """Ask whether to cancel a job, and request its cancellation when the answer is posted."""
    check(request, "cancel_job")
    try:
        if request.method != "POST":
            return _ask_cancel(request, job_id)
        return _do(request, job_id, request_cancel, CANCEL_ANSWERS)
    except BrokerError:
        return without_broker(request)


@require_POST
@never_cache
def run_now(request: HttpRequest, job_id: str) -> HttpResponse:
    """Make a scheduled job, or one that waits for its retry, due at once."""
    check(request, "run_job")
    try:
        return _do(request, job_id, start_now, RUN_NOW_ANSWERS)
    except BrokerError:
        return without_broker(request)


def _do(
    request: HttpRequest, job_id: str, act: Callable[..., str], answers: Mapping[str, tuple[int, str]]
) -> HttpResponse:
    answer = "unknown"
    try:
        if is_message_id(job_id):
            answer = act(job_id, who=Who.of_request(request), reason=_reason(request))
    except DatabaseError:
        messages.error(request, LOST.format("changed"))
    else:
        messages.add_message(request, *answers[answer])
    return redirect("switchyard-job", job_id)


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()


def _ask_cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    job = passport_of(job_id)
    if job is None and untracked_job(job_id) is None:
        return without_job(request, job_id)
    if job is not None and job.ended:
        messages.add_message(request, *CANCEL_ANSWERS["ended"])
        return redirect("switchyard-job", job_id)
    context = {"title": "Cancel job", "job": job, "job_id": job_id}
    return TemplateResponse(request, "switchyard_jobs/cancel.html", context)


@require_http_methods(METHODS)
@sensitive_post_parameters()
@never_cache
def again(request: HttpRequest, job_id: str) -> HttpResponse:
    """Ask whether to run a job again, with its arguments to edit; enqueue it when the answer is posted."""
    check(request, "run_job")
    try:
        job = passport_of(job_id)
    except BrokerError:
        return without_broker(request)
    if job is None:
        return without_job(request, job_id)
    if request.method != "POST":
        return _ask_again(request, job, json.dumps(job.arguments or {}, indent=2, ensure_ascii=False, default=str))
    text, new_id = request.POST.get("arguments", ""), request.POST.get("job_id", "")
    try:
        edited = _object_of(text) if may(request, "view_arguments") else None
        who, new_id = Who.of_request(request), new_id if is_job_id(new_id) else ""
        sent = run_again(job, edited=edited, who=who, reason=_reason(request), job_id=new_id)
    except BrokerError as error:
        return _ask_again(request, job, text, wrong=str(error), status=503)
    except DatabaseError:
        return _ask_again(request, job, text, wrong=LOST.format("enqueued"), status=503)
    except (SwitchyardError, MiddlewareError, ValueError) as error:
        return _ask_again(request, job, text, wrong=str(error), status=422)
    messages.success(request, f"{job.actor} is enqueued again as job {sent}.")
    return redirect(job_url(sent))


def _ask_again(request: HttpRequest, job: Passport, text: str, *, wrong: str = "", status: int = 200) -> HttpResponse:
    context = {
        "title": f"Run {job.actor} again",
        "job": job,
        "text": text,
        "wrong": wrong,
        "reason": request.POST.get("reason", ""),
        "new_id": request.POST.get("job_id") or str(uuid.uuid4()),
    }
    return TemplateResponse(request, "switchyard_jobs/again.html", context, status=status)


def _object_of(text: str) -> dict[str, Any]:
    """Return the object of a JSON text.

    Raises:
        ValueError: it is none.
    """
    found = read_json(text)
    if not isinstance(found, dict):
        raise ValueError('write the arguments as an object, {"name": value}')  # noqa: TRY004  a form's mistake
    return found


@require_http_methods(METHODS)
@sensitive_post_parameters()
@never_cache
def edit(request: HttpRequest, job_id: str) -> HttpResponse:
    """Show a job's arguments and due time to edit; change them when the form is posted."""
    check(request, "run_job")
    if not is_message_id(job_id):
        return without_job(request, job_id)
    try:
        job = editable_job(job_id)
    except ActRefused as error:
        messages.warning(request, f"{error.fact[0].upper()}{error.fact[1:]}.")
        return redirect("switchyard-job", job_id)
    except BrokerError:
        return without_broker(request)
    if job.due_at is None:
        check(request, "view_arguments")  # there is nothing else to edit
    if request.method != "POST":
        return _ask(request, job)
    sees = may(request, "view_arguments")
    given = request.POST.get("arguments", job.text)
    try:
        if sees and request.POST.get("version", job.version) != job.version:
            raise ActRefused(f"job {job.id}", "somebody changed its arguments meanwhile; these are the new ones")
        due = request.POST.get("due", "").strip()
        due_at = due_time(due) if job.due is not None and due and due != _shown_time(job) else None
        text = given if sees and given.replace("\r\n", "\n").strip() != job.text else None
        changes = edit_job(job, text=text, due_at=due_at, who=Who.of_request(request), reason=_reason(request))
    except ActRefused as error:
        return _ask(request, job, wrong=error.fact, status=409)
    except (ArgumentsRefused, ValueError) as error:
        return _ask(request, job, given, wrong=str(error), status=422)
    except DatabaseError:
        return _ask(request, job, given, wrong=LOST.format("changed"), status=503)
    except BrokerError as error:
        return _ask(request, job, given, wrong=str(error), status=503)
    messages.success(request, f"Changed {words_of(changes)}. The job has not started yet.")
    return redirect("switchyard-job", job_id)


def _ask(request: HttpRequest, job: EditableJob, text: str = "", *, wrong: str = "", status: int = 200) -> HttpResponse:
    context = {
        "title": f"Edit {job.message.actor_name}",
        "job": job,
        "text": text or job.text,
        "due": request.POST.get("due") or _shown_time(job),
        "wrong": wrong,
        "reason": request.POST.get("reason", ""),
    }
    return TemplateResponse(request, "switchyard_jobs/edit.html", context, status=status)


def _shown_time(job: EditableJob) -> str:
    return "" if job.due is None else f"{job.due:%Y-%m-%dT%H:%M:%S}"
