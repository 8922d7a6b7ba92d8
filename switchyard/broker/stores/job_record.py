"""The record of a job as it is read, and how its message fills it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Final, NamedTuple

import msgspec

from switchyard.broker.clock import is_put_off, now_ms
from switchyard.broker.queue.codec import LARGEST
from switchyard.broker.queue.dead_moves import decode_letter as decode_letter
from switchyard.broker.redis.own_keys import UNREADABLE, read
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores import history_streams
from switchyard.broker.stores.history_streams import EndedJob, Failure, fields_of, kept_body
from switchyard.broker.stores.job_steps import DIGITS, ENDED, GENERATION, STEPS, LiveJob, sequence

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
    except UNREADABLE:
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


_LIVE: Final = msgspec.msgpack.Decoder(LiveJob)


class FamilyAnswer(NamedTuple):
    """Knowledge of one queue family about a job, as ``job_read.lua`` answers it; empty for what is absent."""

    queue: str
    live: bytes
    ended: bytes
    progress: bytes
    body: bytes
    letter: bytes
    quarantined: bytes
    due: bytes
    stop: bytes


class _Candidate(NamedTuple):
    """A record that may be a job's newest: its sequence, then what wins between equals."""

    sequence: int
    rank: int
    record: JobRecord


def record_of(job_id: str, found: Sequence[FamilyAnswer], *, finds_waiting: bool) -> JobRecord | None:
    """Return a job's newest record, or ``None``.

    With ``finds_waiting`` a live record counts only beside its message: without one the job has ended.
    """
    waits = any(one.body for one in found)
    candidates: list[_Candidate] = []
    for one in found:
        candidates += _of_family(job_id, one, with_live=waits or not finds_waiting)
    if not candidates:
        return None
    best = max(candidates, key=lambda candidate: candidate[:2]).record
    progress = next((one.progress for one in found if one.progress), b"")
    if progress and (shown := read_progress(str(progress, "utf-8", "replace"))) is not None:
        best = replace(best, progress=shown)
    if best.ended:
        return best
    if any(one.stop == b"cancelled" for one in found):
        return replace(best, state="cancelled", next_attempt_at=None, cancel_requested=True)
    return replace(best, cancel_requested=best.cancel_requested or any(one.stop == b"asked" for one in found))


def record_of_ended(ended: EndedJob, queue: str) -> JobRecord:
    return record_with(
        ended.id,
        queue,
        ended.message(),
        state=ended.state,
        reason=ended.reason or None,
        attempts=ended.attempt,
        generation=ended.generation,
        started_at=ended.started_at,
        finished_at=ended.finished_at,
        result=read_json(ended.result),
        error=shown_error(ended.error),
        lane=ended.lane or queue,
        pool=ended.pool,
        worker=ended.worker,
        release=ended.release,
        body=ended.body,
        kept_in=ended.kept_in,
    )


def _of_family(job_id: str, found: FamilyAnswer, *, with_live: bool) -> Iterator[_Candidate]:
    if found.ended:
        ended = read(history_streams.ENDED_JOB, found.ended, f"{{{found.queue}}}:job:ended")
        if ended is not None:
            order = sequence(generation=ended.generation, attempts=ended.attempt, state=known_state(ended.state))
            yield _Candidate(order, 4, record_of_ended(ended, found.queue))
    message = fields_of(found.body)
    if found.live and with_live:
        yield from _of_live(found, message)
    if found.body and not is_untracked(message):
        yield _of_body(job_id, found, message)
    letter = decode_letter(f"{{{found.queue}}}:{found.queue}-dead.letters", found.letter) if found.letter else None
    if letter is not None and not is_untracked(letter.message):
        yield _of_letter(letter, found.queue)
    if found.quarantined and not is_untracked(fields_of(found.quarantined)):
        yield _of_quarantined(job_id, found)


def _of_live(found: FamilyAnswer, message: dict[str, Any]) -> Iterator[_Candidate]:
    key = f"{{{found.queue}}}:job:live"
    live = read(_LIVE, found.live[DIGITS:], key)
    if live is None or not found.live[:DIGITS].isdigit():
        return
    order = int(found.live[:DIGITS])
    message = message or fields_of(live.message.encode())
    record = record_with(
        live.id,
        found.queue,
        message,
        state=known_state(live.state),
        reason=_held_reason(found) or live.reason or None,
        attempts=live.attempt,
        generation=live.generation,
        started_at=live.started_at,
        next_attempt_at=_next_attempt_of(live, found, message),
        error=shown_error(live.error),
        lane=live.lane or found.queue,
        pool=live.pool,
        worker=live.worker,
        release=live.release,
        body=found.body or live.message.encode(),
    )
    yield _Candidate(order, 3, record)


def _next_attempt_of(live: LiveJob, found: FamilyAnswer, message: dict[str, Any]) -> int | None:
    """Return when a job is to start again: as its schedule says, which an operator may have changed."""
    if live.next_attempt_at is None or not found.body:
        return live.next_attempt_at
    due_at = read_number(str(found.due, "ascii", "replace"))
    if due_at is not None:
        return None if is_put_off(due_at) else due_at
    was_due_at = number_or_none(options_of(message).get("due_at"))
    return live.next_attempt_at if was_due_at is None else min(was_due_at, live.next_attempt_at)


def _held_reason(found: FamilyAnswer) -> str:
    """Return the reason of a message that waits for the end of a pause of its actor; "" for others."""
    return "actor_paused" if is_put_off(read_number(str(found.due, "ascii", "replace"))) else ""


def _of_body(job_id: str, found: FamilyAnswer, message: dict[str, Any]) -> _Candidate:
    """Return the record of a message that waits, is scheduled or is held: without a live one it was not started."""
    options = options_of(message)
    attempts, generation = number_or_none(options.get("attempts")) or 0, number_or_none(options.get("generation")) or 0
    due_at = read_number(str(found.due, "ascii", "replace"))
    parked, step = "parked_ms" in options, "queued"
    if due_at is not None:
        step = "retrying" if attempts and not parked else "scheduled"
    reason = _held_reason(found) or None
    if step == "scheduled" and reason is None:
        reason = "parked" if parked else text_or_empty(options.get("deferred_by")) or "delay"
    record = record_with(
        job_id,
        found.queue,
        message,
        state="retrying" if attempts and step == "queued" else step,
        reason=reason,
        attempts=attempts,
        generation=generation,
        next_attempt_at=None if is_put_off(due_at) else due_at,
        lane=found.queue,
        body=found.body,
    )
    # A parked message waits for its next start, after its last attempt.
    order = generation * GENERATION + min(attempts, 100_000) * 8 + (4 if parked else 1)
    return _Candidate(order, 1, record)


def _of_letter(letter: DeadLetter, queue: str) -> _Candidate:
    message = letter.message if isinstance(letter.message, dict) else {}
    generation = number_or_none(options_of(message).get("generation")) or 0
    attempts = number_or_none(letter.attempts) or 0
    fields = {
        "actor": letter.actor,
        "sent_at": message.get("message_timestamp"),
        "args": message.get("args"),
        "kwargs": message.get("kwargs"),
        "options": message.get("options"),
    }
    record = record_with(
        letter.id,
        queue,
        fields,
        state="dead",
        reason=text_or_empty(letter.reason) or None,
        attempts=attempts,
        generation=generation,
        finished_at=number_or_none(letter.died_at),
        error={"type": text_or_empty(letter.exception), "message": text_or_empty(letter.error)[:500]},
        lane=queue,
    )
    return _Candidate(sequence(generation=generation, attempts=attempts, state="dead"), 2, record)


def _of_quarantined(job_id: str, found: FamilyAnswer) -> _Candidate:
    message = fields_of(found.quarantined)
    options = options_of(message)
    generation, attempts = number_or_none(options.get("generation")) or 0, number_or_none(options.get("attempts")) or 0
    record = record_with(
        job_id,
        found.queue,
        message,
        state="dead",
        reason="quarantined",
        attempts=attempts,
        generation=generation,
        lane=found.queue,
        body=found.quarantined,
    )
    return _Candidate(sequence(generation=generation, attempts=attempts, state="dead"), 0, record)
