"""Records of jobs: state, attempts, progress, result and error, each kept for a while and followed live.

A job's record is a hash; its events are a short stream beside it. Late news never overwrites newer: each write
carries a sequence that grows with the job (requeues, attempts, step within the attempt).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from broker.clock import now_ms
from broker.errors import ResultTooLarge, UnencodableResult
from broker.keys.keys import Keys
from broker.queue.json_body import LIMIT_BYTES
from broker.redis.calls import RedisCalls
from broker.redis.scripts import script
from broker.stores.record_fields import read_error, read_json, read_number, read_progress

logger = logging.getLogger("switchyard.broker")

HOUR_MS = 3_600_000
LIVE_TTL_MS: Final = 9 * 24 * HOUR_MS
# An hour longer than an Idempotency-Key (apps/platform/api/idempotency.py): its repetition finds the job's record.
FINISHED_TTL_MS: Final = 25 * HOUR_MS
DEAD_TTL_MS: Final = 90 * 24 * HOUR_MS
# As JSON: as much as a message. Records are in the broker's memory, and pages and commands show them whole.
RESULT_LIMIT_BYTES: Final = LIMIT_BYTES
WRITE, FOLLOW, PROGRESS, CANCEL = (
    script(name, folder="") for name in ("job_write", "job_follow", "job_progress", "job_cancel")
)
_JSON: Final = msgspec.json.Encoder()
_PACK: Final = msgspec.msgpack.Encoder()

ENDED: Final = frozenset({"succeeded", "cancelled", "expired", "dead"})

# Steps of one attempt, in order. Steps before a worker's may be written late, hence the numbers.
STEPS: Final = {"scheduled": 1, "queued": 1, "running": 2, "retrying": 3, **dict.fromkeys(ENDED, 4)}


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job as it stands. Times in ms since the epoch; ``None`` where it has not happened.

    Args:
        state: As in the table of job states: scheduled, queued, running, retrying, succeeded, cancelled, expired, dead.
        reason: Why it is scheduled or dead.
        attempts: Times it was started.
        progress: ``{"done", "total", "note"}``.
        error: ``{"type", "message"}`` of the last failure.
        cancel_requested: A user requested its cancellation.
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

    @property
    def ended(self) -> bool:
        """Whether the job has reached its last state."""
        return self.state in ENDED


def sequence(*, generation: int, attempts: int, state: str) -> int:
    """Return the place of a step in a job's life.

    Args:
        generation: Times an operator requeued it.
        attempts: Attempts started, the one spoken of included.
    """
    return generation * 1_048_576 + min(attempts, 100_000) * 8 + STEPS[state]


class Step(NamedTuple):
    """A step of a job as it is written.

    Args:
        fields: More fields of the record, encoded.
        at: When it happened, ms since the epoch.
        public: Fields that followers of the job receive beside state and time.
    """

    job_id: str
    sequence: int
    state: str
    fields: dict[str, str | int]
    at: int
    public: dict[str, Any]
    ttl_ms: int


def _packed(step: Step) -> bytes:
    event = str(_JSON.encode({"state": step.state, "at": step.at, **step.public}), "utf-8")  # Lua knows no binary
    fields = ["state", step.state, *chain.from_iterable(step.fields.items())]
    return _PACK.encode((step.sequence, step.ttl_ms, event, step.state in ENDED, fields))


def step(job_id: str, *, sequence: int, state: str, fields: dict[str, Any], ttl_ms: int) -> Step:
    """Return a step.

    Args:
        sequence: See :func:`sequence`.
        fields: More fields of the record; ``None`` empties one, dicts and lists are kept as JSON.

    Raises:
        TypeError, ValueError, RecursionError: a field is no JSON.
        UnencodableResult: the result is no JSON.
        ResultTooLarge: the result takes more than :data:`RESULT_LIMIT_BYTES`.
    """
    # The server's Lua takes every number for a float: a result that is one is exact as text alone.
    encoded = {
        name: value if type(value) is int and name != "result" else _encoded(name, value)
        for name, value in fields.items()
    }
    return Step(job_id, sequence, state, encoded, now_ms(), _public(fields), ttl_ms)


class JobRecords:
    """Write and read records. Every method may raise what :meth:`broker.redis.calls.RedisCalls.call` raises."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self.calls = calls
        self.keys = keys

    def stream_key(self, job_id: str) -> str:
        """Name of the stream of a job's events: fields ``event`` (state, progress, end) and ``data`` (JSON)."""
        return self.keys.job_events(job_id)

    def write(self, steps: Sequence[Step]) -> list[str]:
        """Record steps, in one round trip.

        Returns:
            For each ``written``; ``late`` when a later step is known; ``cancelled`` when the job was cancelled before
            it; ``refused`` when it cannot be sent or the server would not have it, which is logged.

        Raises:
            BrokerUnavailable: the server did not answer.
        """
        try:
            packed = [_packed(step) for step in steps]
        except (ValueError, OverflowError) as error:  # a number over 64 bits, say, that a sender wrote into its message
            if len(steps) > 1:  # the other steps do not depend on it
                return [results for step in steps for results in self.write([step])]
            logger.error("job %s is not recorded as %s: %s", steps[0].job_id, steps[0].state, error)
            return ["refused"]
        keys = [key for step in steps for key in (self.keys.job(step.job_id), self.keys.job_events(step.job_id))]
        answers = self.calls.call(WRITE, keys, packed)
        results: list[str] = []
        for step, answer in zip(steps, answers, strict=True):
            if isinstance(answer, bytes):
                logger.error("job %s is not recorded as %s: %s", step.job_id, step.state, str(answer, "utf-8"))
                results.append("refused")
            else:
                results.append({1: "written", 0: "late", -1: "cancelled"}[answer])
        return results

    def follow(self, job_id: str) -> None:
        """Keep a job's events from now on. By default none are kept: they take more memory than the job.

        Raises:
            BrokerUnavailable: the server did not answer.
        """
        self.calls.call(FOLLOW, [self.keys.job(job_id)], [])

    def progress(self, job_id: str, progress: dict[str, Any]) -> bool:
        """Record the progress of a running job; ``True`` when its cancellation was requested."""
        keys = [self.keys.job(job_id), self.keys.job_events(job_id)]
        return bool(self.calls.call(PROGRESS, keys, [json.dumps(progress)]))

    def cancel(self, job_id: str, *, place: str = "unknown") -> str:
        """Record the cancellation of a job.

        Args:
            place: Answer of the broker: ``cancelled`` when it never starts, ``asked`` when a worker holds it. Otherwise
                the record decides whether it runs.

        Returns:
            ``unknown``, ``ended``, ``asked`` (it runs, and stops at its next step) or ``cancelled`` (it never starts).
        """
        # Kept as if it lived: its message may be due in a week, and must still find here that it is cancelled.
        data = json.dumps({"state": "cancelled", "at": now_ms()})
        keys = [self.keys.job(job_id), self.keys.job_events(job_id)]
        return str(self.calls.call(CANCEL, keys, [LIVE_TTL_MS, data, place], repeatable=False), "utf-8")

    def cancel_requested(self, job_id: str) -> bool:
        """Whether the job's cancellation was requested.

        Raises:
            BrokerUnavailable: the server did not answer.
        """
        return bool(self.calls.command("HGET", self.keys.job(job_id), "cancel") == b"1")

    def states(self, job_ids: Sequence[str]) -> list[str | None]:
        """Return the state of each job, in one round trip; ``None`` for one that is unknown, expired or unreadable.

        Raises:
            BrokerUnavailable: the server did not answer.
        """
        reads = [("HGET", self.keys.job(job_id), "state") for job_id in job_ids]
        found = self.calls.pipeline(reads, raise_errors=False)
        return [str(state, "utf-8", "replace") if isinstance(state, bytes) else None for state in found]

    def read(self, job_id: str) -> JobRecord | None:
        """Return a job's record, or ``None`` when it is unknown or expired. Fields that cannot be read are left out."""
        found = self.calls.command("HGETALL", self.keys.job(job_id))
        raw = {_text(name): _text(value) for name, value in zip(found[::2], found[1::2], strict=True)}
        if raw.get("state") not in STEPS:
            return None
        return JobRecord(
            id=job_id,
            actor=raw.get("actor", ""),
            queue=raw.get("queue", ""),
            state=raw["state"],
            reason=raw.get("reason") or None,
            attempts=read_number(raw.get("attempts")) or 0,
            progress=read_progress(raw.get("progress")),
            enqueued_at=read_number(raw.get("enqueued_at")),
            started_at=read_number(raw.get("started_at")),
            finished_at=read_number(raw.get("finished_at")),
            next_attempt_at=read_number(raw.get("next_attempt_at")),
            result=read_json(raw.get("result")),
            error=read_error(raw.get("error")),
            owner=raw.get("owner", ""),
            cancel_requested=raw.get("cancel") == "1",
        )


JSON_FIELDS: Final = frozenset({"progress", "result", "error"})
# Fields that a follower of a job receives beside its state.
PUBLIC: Final = ("attempts", "reason", "next_attempt_at", "error")


def _encoded(name: str, value: Any) -> str | int:
    if type(value) is str and name not in JSON_FIELDS:
        return value
    if value is None:
        return ""
    if name in JSON_FIELDS:
        try:
            text = json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            if name != "result":
                raise
            raise UnencodableResult(str(error)) from error
        if name == "result" and len(text) > RESULT_LIMIT_BYTES:
            raise ResultTooLarge(len(text), RESULT_LIMIT_BYTES)
        return text
    return value if isinstance(value, int) else str(value)


def _text(value: bytes) -> str:
    return str(value, "utf-8", "replace")


def _public(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name in PUBLIC if (value := fields.get(name))}
