"""Records of jobs, put together from what the server knows: live and ended records, messages and dead letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgspec

from switchyard.broker.queue.dead_letter_json import decode as decode_letter
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores import ended_jobs
from switchyard.broker.stores.ended_jobs import EndedJob, fields_of
from switchyard.broker.stores.job_record import (
    JobRecord,
    is_untracked,
    known_state,
    number_or_none,
    options_of,
    read_json,
    read_number,
    read_progress,
    record_with,
    shown_error,
    text_or_empty,
)
from switchyard.broker.stores.job_steps import DIGITS, GENERATION, LiveJob, sequence

_LIVE: Final = msgspec.msgpack.Decoder(LiveJob)


class FamilyAnswer(NamedTuple):
    """What one queue family knows of a job, as ``job_read.lua`` answers it; empty for what is absent."""

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
        try:
            ended = ended_jobs.decode(found.ended)
        except msgspec.DecodeError:
            pass
        else:
            order = sequence(generation=ended.generation, attempts=ended.attempt, state=known_state(ended.state))
            yield _Candidate(order, 4, record_of_ended(ended, found.queue))
    message = fields_of(found.body)
    if found.live and with_live:
        yield from _of_live(found, message)
    if found.body and not is_untracked(message):
        yield _of_body(job_id, found, message)
    letter = decode_letter(found.queue, found.letter) if found.letter else None
    if letter is not None and not is_untracked(letter.message):
        yield _of_letter(letter, found.queue)
    if found.quarantined and not is_untracked(fields_of(found.quarantined)):
        yield _of_quarantined(job_id, found)


def _of_live(found: FamilyAnswer, message: dict[str, Any]) -> Iterator[_Candidate]:
    try:
        order, live = int(found.live[:DIGITS]), _LIVE.decode(found.live[DIGITS:])
    except (ValueError, msgspec.DecodeError):
        return
    message = message or fields_of(live.message.encode())
    record = record_with(
        live.id,
        found.queue,
        message,
        state=known_state(live.state),
        reason=live.reason or None,
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
        return due_at
    was_due_at = number_or_none(options_of(message).get("due_at"))
    return live.next_attempt_at if was_due_at is None else min(was_due_at, live.next_attempt_at)


def _of_body(job_id: str, found: FamilyAnswer, message: dict[str, Any]) -> _Candidate:
    """Return the record of a message that waits, is scheduled or is held: without a live one it was not started."""
    options = options_of(message)
    attempts, generation = number_or_none(options.get("attempts")) or 0, number_or_none(options.get("generation")) or 0
    due_at = read_number(str(found.due, "ascii", "replace"))
    parked, step = "parked_ms" in options, "queued"
    if due_at is not None:
        step = "retrying" if attempts and not parked else "scheduled"
    reason = None
    if step == "scheduled":
        reason = "parked" if parked else text_or_empty(options.get("deferred_by")) or "delay"
    record = record_with(
        job_id,
        found.queue,
        message,
        state="retrying" if attempts and step == "queued" else step,
        reason=reason,
        attempts=attempts,
        generation=generation,
        next_attempt_at=due_at,
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
