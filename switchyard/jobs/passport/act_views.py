"""Acts on one job in the admin: run it now; after a question, cancel it or run it again."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dramatiq
from django.contrib import messages
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST
from dramatiq.message import Message
from dramatiq.middleware import MiddlewareError

from switchyard.audit.services import Who, act
from switchyard.broker.admin.scheduled import HELD, amend
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import ActRefused, ArgumentsRefused, BrokerError, SwitchyardError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_records import Job
from switchyard.broker.topology import LONGEST_DELAY_MS
from switchyard.console.formatting import SPAN, UNITS_MS, iso, time_ms, whole_duration
from switchyard.console.links import job_url
from switchyard.console.room_view import RoomResponse
from switchyard.dead_letters.editing import parse_text, shown_text
from switchyard.jobs.admin_pages import check, may
from switchyard.jobs.calls import checked, read_json
from switchyard.jobs.listing.chosen_acts import ACTS
from switchyard.jobs.listing.views import untracked_job, without_broker, without_job
from switchyard.jobs.passport.again import run_again
from switchyard.jobs.passport.reading import passport_of
from switchyard.jobs.queries import families, is_job_id, is_message_id

STARTED: Final = "a worker has it already, with the arguments that it has; cancel it, and run it again with others"
FACTS: Final = {
    "started": STARTED,
    "waiting": "it is due by now and waits for a slot, so its time cannot be changed; nothing was changed",
    "changed": "it was changed meanwhile; nothing was changed, look at it again",
    "unknown": "it has ended, or no job has this id any longer; to repeat it, run it again",
}


@dataclass(frozen=True, slots=True)
class EditableJob:
    """A job that has not started.

    Args:
        text: Its arguments by name as JSON text; hidden ones as their mark.
        due_at: When it is due (ms since the epoch), if that can be changed.
        version: Names its arguments, so that a change by somebody else meanwhile is seen.
    """

    id: str
    message: Message[Any]
    queue: str
    state: str
    text: str
    due_at: int | None
    version: str


def editable_job(job_id: str) -> EditableJob:
    """Return a job to edit.

    Raises:
        ActRefused: it has started or ended, or this broker cannot find it.
        BrokerUnavailable: the broker did not answer.
    """
    record = facilities().records.read(job_id)
    if record is not None and (record.ended or record.end_recorded or record.cancel_requested):
        raise ActRefused(f"job {job_id}", "it has ended or was cancelled; to repeat it, run it again")
    if not families():
        raise ActRefused(
            f"job {job_id}", "this broker cannot change what it has accepted; cancel the job, and send another"
        )
    if record is not None and record.state == "running":
        raise ActRefused(f"job {job_id}", STARTED)
    found = _message_of(job_id, record)
    if found is None:
        raise ActRefused(f"job {job_id}", FACTS["unknown"])
    queue, message = found
    is_scheduled = record is not None and record.state == "scheduled" and record.reason not in HELD
    state = record.state if record is not None else "queued"
    version = hashlib.sha256(repr((message.args, sorted(message.kwargs.items()))).encode()).hexdigest()[:16]
    text, due_at = shown_text(message.actor_name, message.asdict()), record.due_at if record is not None else None
    return EditableJob(job_id, message, queue, state, text, due_at if is_scheduled else None, version)


def edit_job(job: EditableJob, *, text: str | None, due_at: int | None, who: Who, reason: str = "") -> dict[str, Any]:
    """Change a job; return what was changed, without secrets.

    Args:
        text: Its arguments as JSON text; ``None`` to leave them.
        due_at: When it is due, ms since the epoch; ``None`` to leave it.

    Raises:
        ActRefused: it has started, or was changed meanwhile; nothing was changed.
        ArgumentsRefused: the arguments do not fit the actor.
        BrokerUnavailable: the broker did not answer.
        django.db.DatabaseError: the audit log cannot be written; nothing was changed.
    """
    message = job.message
    before = (list(message.args), dict(message.kwargs))
    arguments, changes = before, {}
    if text is not None:
        edited = parse_text(message.actor_name, message.asdict(), text, otherwise="leave them as they are")
        arguments, changes = edited.arguments, dict(edited.changes)
        checked(dramatiq.get_broker().actors[message.actor_name], *arguments)
    if due_at is not None:
        changes["(due)"] = {"from": iso(job.due_at or 0, "seconds"), "to": iso(due_at, "seconds")}
    if not changes:
        raise ActRefused(f"job {job.id}", "nothing is different; change an argument or its time")
    with act("job.edit", who=who, target=job.id, reason=reason, queues=[job.queue]) as entry:
        own_first = sorted(families(), key=lambda family: family.keys.queue != job.queue)
        answer = amend(own_first, job.id, expected=before, arguments=arguments, due_at_ms=due_at)
        entry.count, entry.detail = int(answer == "amended"), {"answer": answer, "changed": changes}
        entry.error = "" if entry.count else answer
    if answer != "amended":
        raise ActRefused(f"job {job.id}", FACTS[answer])
    return changes


def due_time(text: str) -> int:
    """Return a time to come, ms since the epoch: ISO 8601 (UTC without an offset), or ``30m``, ``2h``, ``1d`` from now.

    Raises:
        ValueError: the text is none, or is over, or is further than a delay may be.
    """
    now = now_ms()
    if ahead := SPAN.fullmatch(text):
        at: int | None = now + int(ahead[1]) * UNITS_MS[ahead[2]]
    else:
        at = time_ms("due", text)
    if at is None or at <= now:
        raise ValueError(f"due: {text!r:.40} is over; write a later time, or run the job now")
    if at > now + LONGEST_DELAY_MS:
        raise ValueError(f"due: {text!r:.40} is too far; at most {whole_duration(LONGEST_DELAY_MS)} from now")
    return at


def _message_of(job_id: str, record: Job | None) -> tuple[str, Message[Any]] | None:
    first = record.queue if record is not None else ""
    for name in sorted(facilities().records.queues, key=lambda name: name != first):
        message = facilities().transport.find_message(name, job_id)
        if message is not None:
            return name, message
    return None


def words_of(changes: Mapping[str, Any]) -> str:
    """Return the names of what was changed: ``month and the due time``."""
    names = [name if name != "(due)" else "the due time" for name in changes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


METHODS = ["GET", "HEAD", "POST"]
LOST = "The audit log cannot be written, so nothing was {}; check /readyz, then try again."


@require_http_methods(METHODS)
def cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    """Ask whether to cancel a job, and request its cancellation when the answer is posted."""
    check(request, "cancel_job")
    try:
        if request.method != "POST":
            return _ask_cancel(request, job_id)
        return _do(request, job_id, "cancel")
    except BrokerError:
        return without_broker(request)


@require_POST
def run_now(request: HttpRequest, job_id: str) -> HttpResponse:
    """Make a scheduled job, or one that waits for its retry, due at once."""
    check(request, "run_job")
    try:
        return _do(request, job_id, "run-now")
    except BrokerError:
        return without_broker(request)


def _do(request: HttpRequest, job_id: str, verb: str) -> HttpResponse:
    answer = "unknown"
    try:
        if is_message_id(job_id):
            answer = ACTS[verb].apply(job_id, Who.of_request(request), _reason(request), "")
    except DatabaseError:
        messages.error(request, LOST.format("changed"))
    else:
        _say(request, verb, answer)
    return redirect("switchyard-job", job_id)


def _say(request: HttpRequest, verb: str, answer: str) -> None:
    level = messages.SUCCESS if answer in ACTS[verb].good else messages.WARNING
    messages.add_message(request, level, f"The job {ACTS[verb].said(answer)}.")


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()


def _ask_cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    known = passport_of(job_id)
    job = None if known is None else known.job
    if job is None and untracked_job(job_id) is None:
        return without_job(request, job_id)
    if job is not None and job.ended:
        _say(request, "cancel", "ended")
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
        check(request, "view_arguments", queue=job.queue)  # there is nothing else to edit
    if request.method != "POST":
        return _ask(request, job)
    sees = may(request, "view_arguments", job.queue)
    given = request.POST.get("arguments", job.text)
    try:
        if sees and request.POST.get("version", job.version) != job.version:
            raise ActRefused(f"job {job.id}", "somebody changed its arguments meanwhile; these are the new ones")
        due = request.POST.get("due", "").strip()
        due_at = due_time(due) if job.due_at is not None and due and due != _shown_time(job) else None
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
        "acts_on": job.queue,
        "wrong": wrong,
        "reason": request.POST.get("reason", ""),
    }
    return RoomResponse(request, "switchyard_jobs/edit.html", context, status=status)


def _shown_time(job: EditableJob) -> str:
    return "" if job.due_at is None else f"{datetime_of(job.due_at):%Y-%m-%dT%H:%M:%S}"
