"""Steps of jobs as a worker records them: what the job's record becomes, and rows for the history."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from switchyard.broker.clock import now_ms
from switchyard.broker.stores.history_streams import EndedJob, Failure, encode, encode_success

ENDED: Final = frozenset({"succeeded", "cancelled", "expired", "dead"})

# Steps of one attempt, in order. Steps before a worker's may be written late, hence the numbers.
STEPS: Final = {"scheduled": 1, "queued": 1, "running": 2, "retrying": 3, **dict.fromkeys(ENDED, 4)}
GENERATION: Final = 1_048_576
MOST_ATTEMPTS: Final = 100_000
# Digits of a sequence before a live record: the server compares them as text.
DIGITS: Final = 20
_PACK: Final = msgspec.msgpack.Encoder()


class LiveJob(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Record of a job that has not ended. The first eight fields are those of an ended one: the server reads them.

    Args:
        state: ``running`` or ``retrying``; also ``queued`` and ``scheduled`` where the broker finds no waiting message.
        reason: Why it is scheduled.
        attempt: Attempts started.
        started_at, next_attempt_at: ms since the epoch.
        error: Of the last attempt that failed.
        message: The message's body, where the broker finds no message by its id.
    """

    id: str
    state: str
    reason: str = ""
    attempt: int = 0
    generation: int = 0
    started_at: int | None = None
    next_attempt_at: int | None = None
    error: Failure | None = None
    lane: str = ""
    pool: str = ""
    worker: str = ""
    release: str = ""
    message: str = ""


class WorkerPlace(NamedTuple):
    """Names of pool, process and code of a worker, written into the records of its jobs."""

    pool: str = ""
    worker: str = ""
    release: str = ""


class Step(msgspec.Struct, frozen=True, gc=False):
    """A step of a job as it is written.

    Args:
        record: The job's record, encoded.
        rows: Ended attempts for the history, encoded.
        kept_ms: How long the record of an ended job is kept, where that is longer than others; else 0.
        marked: Leave a mark that outlives the record.
    """

    job_id: str
    queue: str
    sequence: int
    state: str
    record: bytes
    rows: tuple[bytes, ...] = ()
    kept_ms: int = 0
    marked: bool = False


def sequence(*, generation: int, attempts: int, state: str) -> int:
    """Return the place of a step in a job's life: times it was requeued, attempts started (its own included), state.

    ``place_of`` in ``switchyard/broker/lua/job_write.lua`` is the same for ends, and no other code computes it.
    """
    return generation * GENERATION + min(attempts, MOST_ATTEMPTS) * 8 + STEPS[state]


def live_step(queue: str, job: LiveJob, *, order: int | None = None, rows: tuple[bytes, ...] = ()) -> Step:
    """Return the step of a job that has not ended; ``rows`` is the attempt that is retried, for the history.

    ``order`` is its sequence, by default that of its generation, attempt and state.
    """
    if order is None:
        order = sequence(generation=job.generation, attempts=job.attempt, state=job.state)
    return Step(job.id, queue, order, job.state, _PACK.encode(job), rows)


def ended_step(
    queue: str,
    job: EndedJob,
    *,
    order: int | None = None,
    in_history: bool = True,
    kept_ms: int = 0,
    marked: bool = False,
) -> Step:
    """Return the step of a job that has ended, as :func:`live_step`; with ``in_history`` a row is written as well."""
    if order is None:
        order = sequence(generation=job.generation, attempts=job.attempt, state=job.state)
    packed = encode(job)
    return Step(job.id, queue, order, job.state, packed, (packed,) if in_history else (), kept_ms, marked)


def success_step(queue: str, message: Any, place: WorkerPlace, body: bytes) -> Step:
    """Return the step of a job that succeeds now, with a row: its result and log lines are not kept."""
    options = message.options
    attempts, generation = int(options.get("attempts", 0)) + 1, int(options.get("generation", 0))
    packed = encode_success(message, attempts, generation, now_ms(), place, body)
    order = sequence(generation=generation, attempts=attempts, state="succeeded")
    return Step(message.message_id, queue, order, "succeeded", packed, (packed,))


def later(known: Step | None, step: Step) -> Step:
    """Return one step for two of a job, with the rows of both."""
    if known is None:
        return step
    rows = known.rows + step.rows
    return msgspec.structs.replace(known if step.sequence < known.sequence else step, rows=rows)
