"""Steps of jobs as a worker records them, and streams of ended attempts, one a queue family, for the database.

Their reader removes entries after it committed their rows: after a crash in between it reads them again, and writes the
same rows.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError, UnreadablePayload
from switchyard.broker.keys import Keys
from switchyard.broker.queue import json_body
from switchyard.broker.redis.calls import RedisCalls, Word, call_together
from switchyard.broker.redis.own_keys import UNREADABLE, number
from switchyard.broker.redis.scripts import script

logger = logging.getLogger("switchyard.broker")

# A larger body goes along without its arguments.
BODY_LIMIT_BYTES: Final = 4_096
LOGS_LIMIT_BYTES: Final = 16_384
# Options of a message that are kept whatever its size.
PLAIN: Final = frozenset(
    {"attempts", "generation", "enqueued_at", "due_at", "owner", "parent", "tags", "origin", "priority", "task"}
)


class Failure(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Exception that ended an attempt; ``fingerprint`` is empty for one that was not raised by a task."""

    type: str
    message: str
    fingerprint: str = ""


class EndedJob(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An ended attempt: the last one of a job, or one that is retried. New fields are added at the end.

    Args:
        state: ``succeeded``, ``cancelled``, ``expired`` or ``dead``; ``retrying`` of an attempt that is retried.
        reason: Why the job is dead.
        attempt: Attempts started, this one included.
        generation: Times an operator requeued the job.
        started_at, finished_at: ms since the epoch; ``None`` of a job that never started.
        result: JSON text.
        logs: Log lines of the attempt, at most :data:`LOGS_LIMIT_BYTES`.
        lane: Lane that it came from: ``webhook``, ``webhook-retry``, ``webhook-alone``.
        worker: Name of the process that ran it.
        body: The message as it came from the broker, see :mod:`switchyard.broker.queue.codec`; empty when unknown.
        kept_in: Place of a result that is not in here, see :mod:`switchyard.broker.stores.result_stores`.
    """

    id: str
    state: str
    reason: str = ""
    attempt: int = 0
    generation: int = 0
    started_at: int | None = None
    finished_at: int = 0
    error: Failure | None = None
    result: str | None = None
    logs: str | None = None
    lane: str = ""
    pool: str = ""
    worker: str = ""
    release: str = ""
    body: bytes = b""
    kept_in: str = ""


def fields_of(body: bytes) -> dict[str, Any]:
    """Return the fields of a message: ``actor``, ``sent_at``, ``args``, ``kwargs``, ``options``.

    Fields may be missing or of any type: foreign clients write messages as well. Empty when the body is no message.
    """
    try:
        return json_body.decode(body) if body else {}
    except UnreadablePayload:
        return {}


def kept_body(body: bytes) -> bytes:
    """Return a message's body as it is kept: a large one without arguments, then without anything but its actor."""
    if len(body) <= BODY_LIMIT_BYTES:
        return body
    try:
        fields = json_body.decode(body)
    except UnreadablePayload:
        return b""
    fields.pop("args", None)
    fields.pop("kwargs", None)
    shorter = json_body.encode(fields, limit_bytes=None)
    if len(shorter) <= BODY_LIMIT_BYTES:
        return shorter
    options = fields.get("options")
    plain = {name: value for name, value in options.items() if name in PLAIN} if isinstance(options, dict) else {}
    return json_body.encode({"actor": fields.get("actor"), "sent_at": fields.get("sent_at"), "options": plain})


_PACK: Final = msgspec.msgpack.Encoder()
ENDED_JOB: Final = msgspec.msgpack.Decoder(EndedJob)
_READ_ROWS: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


def encode(job: EndedJob) -> bytes:
    return _PACK.encode(job)


def encode_success(
    message: Any, attempts: int, generation: int, finished_at: int, place: tuple[str, str, str], body: bytes
) -> bytes:
    """Return the ended attempt of a success without result and log lines as bytes, as :func:`encode` would.

    Most attempts end so: a plain tuple in the order of the fields costs a third of the object. ``place`` names pool,
    worker and release.
    """
    pool, worker, release = place
    started_at, lane = getattr(message, "started_ms", None), message.queue_name
    head = (message.message_id, "succeeded", "", attempts, generation, started_at, finished_at)
    return _PACK.encode((*head, None, None, None, lane, pool, worker, release, body))


def encode_rows(rows: Iterable[bytes]) -> bytes:
    """Return encoded attempts as the field ``rows`` of an entry of a history stream."""
    packed = list(rows)
    count = len(packed)
    header = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return header + b"".join(packed)


def decode_rows(packed: bytes) -> Iterator[EndedJob]:
    """Yield the attempts of the field ``rows``; one that cannot be read is left out and logged.

    Raises:
        ValueError, RecursionError: it holds no rows at all.
    """
    for row in _READ_ROWS.decode(packed):
        try:
            yield ENDED_JOB.decode(row)
        except UNREADABLE as error:
            logger.error("a row of %d bytes in a history stream cannot be read, left out: %s", len(bytes(row)), error)


COUNTS: Final = ("written", "skipped")
REMOVE: Final = script("history_remove", folder="")
# Words of a call: ids with the sizes and numbers of their rows.
AT_ONCE: Final = 1_500


class HistoryEntry(msgspec.Struct, frozen=True):
    """An entry of a stream: number of rows, and rows for :func:`decode_rows`."""

    queue: str
    id: bytes
    count: int
    rows: bytes


class HistoryBacklog(msgspec.Struct, frozen=True):
    """Entries of one family that are not in the database yet.

    Args:
        oldest_age_ms: Since the oldest entry was added, by the server's clock; ``None`` without one.
        dropped: Rows that were lost to the stream's budget, since the keyspace was made.
    """

    queue: str
    entries: int
    oldest_age_ms: int | None
    dropped: int


class HistoryStreams:
    """Reader of the streams."""

    def __init__(self, calls: RedisCalls, keys: Keys, queues: Iterable[str]) -> None:
        self._calls, self._keys = calls, keys
        self._queues = tuple(queues)

    def read(self, *, limit: int) -> list[HistoryEntry]:
        """Return the oldest entries of each family, at most ``limit`` of each, in one round trip."""
        commands = [("XRANGE", self._stream(queue), "-", "+", "COUNT", limit) for queue in self._queues]
        answers = self._calls.pipeline(commands, raise_errors=False)
        return [
            _entry(queue, id_, fields)
            for queue, answer in zip(self._queues, answers, strict=True)
            if isinstance(answer, list)  # else a key of a wrong type, which doctor reports
            for id_, fields in answer
        ]

    def remove(self, entries: Sequence[HistoryEntry], *, written: int, skipped: int) -> None:
        """Remove entries whose rows were committed, in the order of the stream, and count their rows."""
        sizes: dict[str, list[Word]] = {}
        for entry in entries:
            sizes.setdefault(entry.queue, []).extend((entry.id, len(entry.rows), entry.count))
        batches = [
            ([self._stream(queue), self._keys.queue(queue).ended], found[start : start + AT_ONCE])
            for queue, found in sizes.items()
            for start in range(0, len(found), AT_ONCE)
        ]
        call_together(self._calls, REMOVE, batches)
        counts = [(name, count) for name, count in zip(COUNTS, (written, skipped), strict=True) if count]
        self._calls.pipeline([("HINCRBY", self._keys.history_counts(), name, count) for name, count in counts])

    def counts(self) -> dict[str, int]:
        """Return how many rows were written, and how many were skipped because they could not be read."""
        key = self._keys.history_counts()
        [found] = self._calls.look([("HMGET", key, *COUNTS)])
        return {name: number(value, key) for name, value in zip(COUNTS, found, strict=True)}

    def backlog(self) -> list[HistoryBacklog]:
        """Return what each family holds, in one round trip."""
        commands: list[Sequence[Word]] = [("TIME",)]
        for queue in self._queues:
            stream = self._stream(queue)
            commands += [("XLEN", stream), ("XRANGE", stream, "-", "+", "COUNT", 1)]
            commands.append(("HGET", self._keys.queue(queue).ended, "dropped"))
        clock, *answers = self._calls.pipeline(commands, raise_errors=False)
        if isinstance(clock, BrokerError):  # a server that loads its data, or runs a script too long, answers all alike
            raise clock
        now = int(clock[0]) * 1000 + int(clock[1]) // 1000
        return [
            HistoryBacklog(
                queue,
                length if isinstance(length, int) else 0,
                _age_ms(first, now),
                number(dropped, self._keys.queue(queue).ended) if isinstance(dropped, bytes) else 0,
            )
            for queue, length, first, dropped in zip(
                self._queues, answers[::3], answers[1::3], answers[2::3], strict=True
            )
        ]

    def _stream(self, queue: str) -> str:
        return self._keys.queue(queue).history


def _entry(queue: str, id_: bytes, fields: Any) -> HistoryEntry:
    found = dict(zip(fields[::2], fields[1::2], strict=False)) if isinstance(fields, list) else {}
    count = found.get(b"n", b"")
    return HistoryEntry(
        queue, id_, int(count) if count.isdigit() and len(count) < 7 else 1, bytes(found.get(b"rows", b""))
    )


def _age_ms(first: Any, now: int) -> int | None:
    return max(0, now - int(first[0][0].partition(b"-")[0])) if isinstance(first, list) and first else None


ENDED: Final = frozenset({"succeeded", "cancelled", "expired", "dead"})

# Steps of one attempt, in order. Steps before a worker's may be written late, hence the numbers.
STEPS: Final = {"scheduled": 1, "queued": 1, "running": 2, "retrying": 3, **dict.fromkeys(ENDED, 4)}
GENERATION: Final = 1_048_576
MOST_ATTEMPTS: Final = 100_000
# Digits of a sequence before a live record: the server compares them as text.
DIGITS: Final = 20


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
