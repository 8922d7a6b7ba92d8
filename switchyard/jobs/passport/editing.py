"""Change of a job that has not started: its arguments, and when it is due while it is scheduled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dramatiq
from dramatiq.message import Message

from switchyard.audit.services import Who, act
from switchyard.broker.admin.amend import amend
from switchyard.broker.admin.run_now import HELD
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import ActRefused
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_records import JobRecord
from switchyard.broker.validation import LONGEST_DELAY_MS
from switchyard.console.formatting import whole_duration
from switchyard.console.times import as_time
from switchyard.dead_letters.editing import parse_text, shown_text
from switchyard.history.filters import SPAN, UNITS_MS, time_ms
from switchyard.jobs.calls.arguments import checked
from switchyard.jobs.running import families

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

    due = as_time("due_at")


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
        changes["(due)"] = {"from": _iso(job.due_at), "to": _iso(due_at)}
    if not changes:
        raise ActRefused(f"job {job.id}", "nothing is different; change an argument or its time")
    with act("job.edit", who=who, target=job.id, reason=reason) as entry:
        own_first = sorted(families(), key=lambda family: family.keys.queue != job.queue)
        answer = amend(own_first, job.id, expected=before, arguments=arguments, due_at_ms=due_at)
        entry.count, entry.detail = int(answer == "amended"), {"answer": answer, "changes": changes}
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


def _message_of(job_id: str, record: JobRecord | None) -> tuple[str, Message[Any]] | None:
    first = record.queue if record is not None else ""
    for name in sorted(facilities().records.queues, key=lambda name: name != first):
        message = facilities().transport.find_message(name, job_id)
        if message is not None:
            return name, message
    return None


def _iso(at: int | None) -> str:
    return "" if at is None else datetime_of(at).isoformat(timespec="seconds").replace("+00:00", "Z")


def words_of(changes: Mapping[str, Any]) -> str:
    """Return the names of what was changed: ``month and the due time``."""
    names = [name if name != "(due)" else "the due time" for name in changes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
