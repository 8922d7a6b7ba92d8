"""The record of a job as it is read, and how its message fills it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Final

from switchyard.broker.clock import now_ms
from switchyard.broker.queue.codec import LARGEST
from switchyard.broker.stores.ended_jobs import EndedJob, Failure, kept_body
from switchyard.broker.stores.job_steps import ENDED, STEPS

LONGEST_NOTE: Final = 500
LARGEST_COUNT: Final = 2**53


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job as it stands. Times in ms since the epoch; ``None`` where it has not happened.

    Args:
        state: As in the table of job states: scheduled, queued, running, retrying, succeeded, cancelled, expired, dead.
        reason: Why it is scheduled or dead.
        attempts: Times it was started.
        progress: ``{"done", "total", "note"}``.
        error: ``{"type", "message"}`` of the last failure.
        lane: Lane that it waits in or ran from; the queue's name where that is unknown.
        generation: Times an operator requeued it.
        pool, worker, release: Of its last attempt.
        due_at: When the message is due, or was.
        options: Of its message; empty in what the history keeps.
        body: Its message as the broker holds it; empty when the broker does not.
        kept_in: Place of a result that is not in the record.
    """

    id: str
    actor: str
    queue: str
    state: str
    reason: str | None
    attempts: int
    progress: dict[str, Any] | None
    enqueued_at: int | None
    started_at: int | None
    finished_at: int | None
    next_attempt_at: int | None
    result: Any
    error: dict[str, str] | None
    owner: str
    cancel_requested: bool
    lane: str = ""
    generation: int = 0
    pool: str = ""
    worker: str = ""
    release: str = ""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    parent: str = ""
    due_at: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    kept_in: str = ""

    @property
    def ended(self) -> bool:
        """Whether the job has reached its last state."""
        return self.state in ENDED

    @property
    def end_recorded(self) -> bool:
        """Whether its end is recorded, too: a kill may come between the cancellation of a message and its record."""
        return self.ended and not (self.state == "cancelled" and self.finished_at is None)


def record_with(job_id: str, queue: str, message: dict[str, Any], **known: Any) -> JobRecord:
    """Return a record with what its message says."""
    options = options_of(message)
    args, kwargs, tags, origin = (
        message.get("args"),
        message.get("kwargs"),
        options.get("tags"),
        options.get("origin"),
    )
    owner = options.get("owner")
    defaults: dict[str, Any] = dict.fromkeys(("started_at", "finished_at", "next_attempt_at", "result", "error"))
    return JobRecord(
        **{
            **defaults,
            "id": job_id,
            "actor": text_or_empty(message.get("actor")),
            "queue": queue,
            "progress": None,
            "enqueued_at": number_or_none(options.get("enqueued_at") or message.get("sent_at")),
            "owner": str(owner) if owner else "",
            "cancel_requested": False,
            "args": args if isinstance(args, list | tuple) else (),
            "kwargs": kwargs if isinstance(kwargs, dict) else {},
            "tags": tuple(map(str, tags)) if isinstance(tags, list | tuple) else (),
            "origin": origin if isinstance(origin, dict) else {},
            "parent": text_or_empty(options.get("parent")),
            "due_at": number_or_none(options.get("due_at")),
            "options": options,
            **known,
        }
    )


def cancelled_job(record: JobRecord) -> EndedJob:
    """Return the end of a job that is cancelled now."""
    return EndedJob(
        id=record.id,
        state="cancelled",
        attempt=record.attempts,
        generation=record.generation,
        started_at=record.started_at,
        finished_at=now_ms(),
        lane=record.lane,
        pool=record.pool,
        worker=record.worker,
        release=record.release,
        body=kept_body(record.body),
    )


def options_of(message: Mapping[str, Any]) -> dict[str, Any]:
    options = message.get("options")
    return options if isinstance(options, dict) else {}


def is_untracked(message: dict[str, Any]) -> bool:
    """Return whether a message says that its job keeps no record."""
    return options_of(message).get("track") is False


def shown_error(failure: Failure | None) -> dict[str, str] | None:
    """Return a failure as records show it."""
    return None if failure is None else {"type": failure.type, "message": failure.message}


def known_state(state: str) -> str:
    """Return a state, or ``queued`` for that of another release."""
    return state if state in STEPS else "queued"


def number_or_none(value: Any) -> int | None:
    """Return a whole number in the range of times, or ``None``."""
    return value if type(value) is int and 0 <= value <= LARGEST else None


def text_or_empty(value: Any) -> str:
    return value if isinstance(value, str) else ""


def progress_of(done: Any, total: Any, note: Any) -> dict[str, Any]:
    """Return progress as it is recorded: whole numbers, and a note of at most 500 characters.

    Raises:
        ValueError: ``done`` or ``total`` is no finite number.
    """
    return {"done": _count("done", done), "total": _count("total", total), "note": _note(note)}


def read_progress(text: str | None) -> dict[str, Any] | None:
    """Return a record's progress, or ``None`` without one that can be shown."""
    found = read_json(text)
    if not isinstance(found, dict):
        return None
    try:
        return progress_of(found.get("done"), found.get("total"), found.get("note"))
    except ValueError:
        return None


def read_json(text: str | None) -> Any:
    """Return a value kept as JSON; ``None`` for no value and for what is no JSON."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def read_number(text: str | None) -> int | None:
    """Return a whole number from 0 to the last millisecond of the year 9999, or ``None``."""
    try:
        number = int(float(text)) if text else -1
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= LARGEST else None


def _count(name: str, value: Any) -> int:
    is_number = isinstance(value, Real)  # those of other libraries too
    if not is_number or not -LARGEST_COUNT <= value <= LARGEST_COUNT or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r:.100}, no finite number; write report_progress(3, 10, 'a note')")
    return int(value)


def _note(value: Any) -> str:
    note = "" if value is None else str(value)[:LONGEST_NOTE]
    return str(note.encode("utf-8", "replace"), "utf-8")
