"""A job, made from the broker's sources: its message, its live record, its ended one, its dead letter."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from numbers import Real
from typing import Any, Final, NamedTuple

import msgspec

from switchyard.broker.clock import is_put_off, now_ms, put_off_reason
from switchyard.broker.queue.codec import LARGEST
from switchyard.broker.redis.own_keys import UNREADABLE, moment, read, utf8
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores import history_streams
from switchyard.broker.stores.dead_lists import decode_letter as decode_letter
from switchyard.broker.stores.history_streams import (
    DIGITS,
    ENDED,
    STEPS,
    EndedJob,
    LiveJob,
    fields_of,
    kept_body,
    sequence,
)

LONGEST_NOTE: Final = 500
LARGEST_COUNT: Final = 2**53
# Fields that a job and the records of its attempts have alike.
OF_ATTEMPT: Final = ("generation", "started_at", "pool", "worker", "release")


# As LeaseTable names a child: pool, host, process id, eight letters, number of the child, number of its start.
_CHILD = re.compile(r"(?P<pool>.+?)\.(?P<host>.+)\.(?P<pid>\d+)\.[0-9a-f]{8}\.(?P<child>\d+)\.\d+")


class Holder(msgspec.Struct, frozen=True):
    """The worker that holds a message. Empty where its name is no pool's, as that of ``manage.py runworker``.

    Args:
        member: Name of its supervisor, as ``PoolReport.member``.
        child: Number of the child among those of its supervisor.
    """

    name: str
    member: str = ""
    pool: str = ""
    host: str = ""
    child: int | None = None


@lru_cache(maxsize=1024)
def holder_of(worker: str) -> Holder:
    """Return the worker of a name, as records have it: that of a lease's owner without its lane."""
    found = _CHILD.fullmatch(worker)
    if found is None:
        return Holder(worker)
    pool, host, pid = found["pool"], found["host"], found["pid"]
    name = f"{pool} on {host} (pid {pid}), child {found['child']}"
    return Holder(name, f"{pool}:{host}:{pid}", pool, host, int(found["child"]))


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands, or as one attempt of it left it. Times in ms since the epoch; ``None`` where not happened.

    One function makes it from each source: from a message, a live record, an ended one and a dead letter below, from a
    row of the history ``job_of_row`` of ``switchyard.history.queries``. Its JSON form, ``job_json`` of
    ``switchyard.jobs.presentation``, has these fields in this order, without the internal ones.

    Args:
        state: As in the table of job states: scheduled, queued, running, retrying, succeeded, cancelled, expired, dead.
        reason: Why it is scheduled or dead.
        attempts: Times it was started.
        progress: ``{"done", "total", "note"}``.
        error: ``{"type", "message"}`` of the last failure.
        generation: Times an operator requeued it.
        wait_ms: Time for which it waited for its last start after it was ready.
        lane: Lane that it waits in or ran from; the queue's name where that is unknown.
        pool, worker, release: Of its last attempt.
        origin: ``request``, ``user`` and ``schedule`` that sent it.
        failed_at: When an attempt failed last, where only the history knows.
        due_at: When the message is due, or was.
        options: Of its message; empty in what the history keeps.
        body: Its message as the broker holds it; empty when the broker does not.
        arguments: By name, without redacted values, where ``args`` and ``kwargs`` are not kept; ``None`` when they were
            too long to be kept.
        kept_in: Place of a result that is not in ``result``.
        logs: Log lines of the attempt.
        silent_ms: Time for which the process that runs it has answered nothing; 0 for one that answers.
        at: Time that orders lists: of its enqueueing, then of its end or its failure.
    """

    id: str
    actor: str = ""
    queue: str = ""
    state: str = ""
    reason: str | None = None
    attempts: int = 0
    progress: dict[str, Any] | None = None
    enqueued_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    result: Any = None
    error: dict[str, str] | None = None
    next_attempt_at: int | None = None
    owner: str = ""
    tags: Sequence[str] = ()
    parent: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)
    generation: int = 0
    cancel_requested: bool = False
    failed_at: int | None = None
    fingerprint: str = ""
    wait_ms: int | None = None
    lane: str = ""
    pool: str = ""
    worker: str = ""
    release: str = ""
    # Internal from here on.
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] | None = field(default_factory=dict)
    due_at: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    kept_in: str = ""
    logs: str = ""
    silent_ms: int = 0
    at: int = 0

    @property
    def ended(self) -> bool:
        """Whether the job has reached its last state."""
        return self.state in ENDED

    @property
    def end_recorded(self) -> bool:
        """Whether its end is recorded, too: a kill may come between the cancellation of a message and its record."""
        return self.ended and not (self.state == "cancelled" and self.finished_at is None)

    @property
    def holder(self) -> Holder:
        """The worker of its last attempt."""
        return holder_of(self.worker)

    @property
    def run_ms(self) -> int | None:
        """Time for which its last attempt ran, or runs."""
        end = now_ms() if self.state == "running" else self.finished_at
        return None if self.started_at is None or end is None else max(end - self.started_at, 0)


def job_of(job_id: str, queue: str, message: dict[str, Any], **known: Any) -> Job:
    """Return a job with the fields that its message has, and those that are ``known`` besides."""
    options = options_of(message)
    args, kwargs = message.get("args"), message.get("kwargs")
    owner, tags, origin = (options.get(name) for name in ("owner", "tags", "origin"))
    due_at = number_or_none(options.get("due_at"))
    enqueued_at = number_or_none(options.get("enqueued_at") or message.get("sent_at"))
    started_at, ready_at = known.get("started_at"), due_at or enqueued_at
    wait_ms = None
    if started_at is not None and ready_at is not None and known["attempts"] <= 1 and not known["generation"]:
        wait_ms = max(started_at - ready_at, 0)
    return Job(
        id=job_id,
        actor=text_or_empty(message.get("actor")),
        queue=queue,
        enqueued_at=enqueued_at,
        owner=str(owner) if owner else "",
        args=args if isinstance(args, list | tuple) else (),
        kwargs=kwargs if isinstance(kwargs, dict) else {},
        tags=tuple(map(str, tags)) if isinstance(tags, list | tuple) else (),
        origin=origin if isinstance(origin, dict) else {},
        parent=text_or_empty(options.get("parent")),
        wait_ms=wait_ms,
        due_at=due_at,
        options=options,
        at=known.get("finished_at") or enqueued_at or 0,
        **known,
    )


def cancelled_job(job: Job) -> EndedJob:
    """Return the end of a job that is cancelled now."""
    same = {name: getattr(job, name) for name in ("lane", *OF_ATTEMPT)}
    body = kept_body(job.body)
    return EndedJob(job.id, "cancelled", attempt=job.attempts, finished_at=now_ms(), body=body, **same)


def options_of(message: Mapping[str, Any]) -> dict[str, Any]:
    options = message.get("options")
    return options if isinstance(options, dict) else {}


def is_untracked(message: dict[str, Any]) -> bool:
    """Return whether a message has ``track=False``: its job keeps no record."""
    return options_of(message).get("track") is False


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

    @property
    def due_at(self) -> int | None:
        """When its message is due, in ms since the epoch; ``None`` for one that is not scheduled."""
        return moment(self.due) if self.due else None


class _Candidate(NamedTuple):
    """A job as one source has it: its place in the order of the job's life, then what wins between equals."""

    sequence: int
    rank: int
    job: Job


def newest_job(job_id: str, found: Sequence[FamilyAnswer], *, finds_waiting: bool) -> Job | None:
    """Return a job from its newest source, or ``None``.

    With ``finds_waiting`` a live record counts only beside its message: without one the job has ended.
    """
    waits = any(one.body for one in found)
    candidates: list[_Candidate] = []
    for one in found:
        candidates += _of_family(job_id, one, with_live=waits or not finds_waiting)
    if not candidates:
        return None
    best = max(candidates, key=lambda candidate: candidate[:2]).job
    progress = next((one.progress for one in found if one.progress), b"")
    if progress and (shown := read_progress(utf8(progress))) is not None:
        best = replace(best, progress=shown)
    if best.ended:
        return best
    if any(one.stop == b"cancelled" for one in found):
        return replace(best, state="cancelled", next_attempt_at=None, cancel_requested=True)
    return replace(best, cancel_requested=best.cancel_requested or any(one.stop == b"asked" for one in found))


def job_of_ended(ended: EndedJob, queue: str) -> Job:
    """Return a job that has ended, or an attempt that is retried."""
    return job_of(
        ended.id,
        queue,
        fields_of(ended.body),
        state=ended.state,
        reason=ended.reason or None,
        attempts=ended.attempt,
        finished_at=ended.finished_at,
        result=read_json(ended.result),
        body=ended.body,
        kept_in=ended.kept_in,
        logs=ended.logs or "",
        **_of_attempt(ended, queue),
    )


def _of_attempt(record: EndedJob | LiveJob, queue: str) -> dict[str, Any]:
    """Return the fields that both records have alike."""
    error = record.error
    return {
        **{name: getattr(record, name) for name in OF_ATTEMPT},
        "error": None if error is None else {"type": error.type, "message": error.message},
        "fingerprint": "" if error is None else error.fingerprint,
        "lane": record.lane or queue,
    }


def job_of_message(job_id: str, queue: str, body: bytes, *, due_at: int | None) -> Job:
    """Return a job by its message alone: it waits, or is scheduled for ``due_at`` (ms since the epoch)."""
    message = fields_of(body)
    options = options_of(message)
    attempts, parked = number_or_none(options.get("attempts")) or 0, "parked_ms" in options
    state, reason = "retrying" if attempts else "queued", ""
    if due_at is not None:
        state = "retrying" if attempts and not parked else "scheduled"
    if put_off := put_off_reason(due_at):
        reason = put_off
    elif state == "scheduled":
        reason = "parked" if parked else text_or_empty(options.get("deferred_by")) or "delay"
    return job_of(
        job_id,
        queue,
        message,
        state=state,
        reason=reason or None,
        attempts=attempts,
        generation=number_or_none(options.get("generation")) or 0,
        next_attempt_at=None if is_put_off(due_at) else due_at,
        lane=queue,
        body=body,
    )


def job_of_live(live: LiveJob, found: FamilyAnswer) -> Job:
    """Return a job that was started and has not ended."""
    message = fields_of(found.body) or fields_of(live.message.encode())
    options, put_off = options_of(message), put_off_reason(found.due_at)
    # A message that is due later does not run, nor one that was put off after its start, by clocks that differ by less
    # than 500 ms: its last attempt met a lock or an open circuit, and was not spent. A retry has spent one, and is
    # recorded in a moment.
    spent, deferred_by = number_or_none(options.get("attempts")) or 0, text_or_empty(options.get("deferred_by"))
    was_put_off = deferred_by and (number_or_none(options.get("due_at")) or 0) > (live.started_at or LARGEST) + 500
    unspent = live.state == "running" and bool(found.due_at is not None or was_put_off) and spent < live.attempt
    waits = "retrying" if live.attempt > 1 else "queued" if found.due_at is None else "scheduled"
    due_at = None if put_off else found.due_at
    return job_of(
        live.id,
        found.queue,
        message,
        state=waits if unspent else known_state(live.state),
        reason=put_off or (deferred_by if unspent and waits != "queued" else "") or live.reason or None,
        attempts=live.attempt - int(unspent),
        next_attempt_at=due_at if unspent else _next_attempt_of(live, found, message),
        body=found.body or live.message.encode(),
        **_of_attempt(live, found.queue),
    )


def job_of_letter(letter: DeadLetter, queue: str) -> Job:
    """Return a dead job from its dead letter."""
    message = letter.message if isinstance(letter.message, dict) else {}
    options = options_of(message)
    fields = {**message, "actor": letter.actor, "sent_at": message.get("message_timestamp"), "options": options}
    return job_of(
        letter.id,
        queue,
        fields,
        state="dead",
        reason=text_or_empty(letter.reason) or None,
        attempts=number_or_none(letter.attempts) or 0,
        generation=number_or_none(options.get("generation")) or 0,
        finished_at=number_or_none(letter.died_at),
        error={"type": text_or_empty(letter.exception), "message": text_or_empty(letter.error)[:500]},
        fingerprint=text_or_empty(letter.fingerprint),
        lane=queue,
    )


def _of_family(job_id: str, found: FamilyAnswer, *, with_live: bool) -> Iterator[_Candidate]:
    key = f"{{{found.queue}}}:job"
    if found.ended and (ended := read(history_streams.ENDED_JOB, found.ended, f"{key}:ended")) is not None:
        yield _candidate(4, job_of_ended(ended, found.queue), state=known_state(ended.state))
    if found.live[:DIGITS].isdigit() and with_live:
        live = read(_LIVE, found.live[DIGITS:], f"{key}:live")
        if live is not None:
            yield _Candidate(int(found.live[:DIGITS]), 3, job_of_live(live, found))
    if found.body and not is_untracked(fields_of(found.body)):
        job = job_of_message(job_id, found.queue, found.body, due_at=found.due_at)
        # A parked message waits for its next start, after its last attempt.
        yield _candidate(1, job, state="dead" if "parked_ms" in job.options else "queued")
    letter = decode_letter(f"{{{found.queue}}}:{found.queue}-dead.letters", found.letter) if found.letter else None
    if letter is not None and not is_untracked(letter.message):
        yield _candidate(2, job_of_letter(letter, found.queue))
    if found.quarantined and not is_untracked(fields_of(found.quarantined)):
        job = job_of_message(job_id, found.queue, found.quarantined, due_at=None)
        yield _candidate(0, replace(job, state="dead", reason="quarantined"))


def _candidate(rank: int, job: Job, *, state: str = "") -> _Candidate:
    order = sequence(generation=job.generation, attempts=job.attempts, state=state or job.state)
    return _Candidate(order, rank, job)


def _next_attempt_of(live: LiveJob, found: FamilyAnswer, message: dict[str, Any]) -> int | None:
    """Return when a job is to start again: by the schedule of its message, which an operator may have changed."""
    if live.next_attempt_at is None or not found.body:
        return live.next_attempt_at
    if (due_at := found.due_at) is not None:
        return None if is_put_off(due_at) else due_at
    was_due_at = number_or_none(options_of(message).get("due_at"))
    return live.next_attempt_at if was_due_at is None else min(was_due_at, live.next_attempt_at)
