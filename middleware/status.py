"""Status: the state of each job, kept for a day after its end; results only where ``store_results`` is set."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import structlog
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from broker.clock import now_ms
from broker.errors import ResultTooLarge
from broker.stores.job_records import DEAD_TTL_MS, FINISHED_TTL_MS, LIVE_TTL_MS, Step, sequence, step
from broker.topology import Yard
from broker.worker.ack_barrier import AckBarrier
from middleware.option_rules import boolean_of, flag, rule_of_both
from middleware.outcomes import attempt, error_text, outcome_of

log = structlog.get_logger(__name__)

ERROR_CHARACTERS = 500


class Status(Middleware):
    """Middleware that records each step of a job: enqueued, started, ended.

    The broker writes the steps before it acknowledges their messages, and after it enqueues one.

    Options of an actor and of a message: ``store_results`` keeps the result, which must be JSON; ``track=False`` keeps
    no record. Option of a message: ``owner``, who may see the job.
    """

    option_rules: ClassVar = (rule_of_both("store_results", flag), rule_of_both("track", flag))

    def __init__(self, *, yard: Yard, barrier: AckBarrier) -> None:
        self._yard = yard
        self._barrier = barrier
        self._queues: dict[str, str] = {}

    @property
    def actor_options(self) -> set[str]:
        """Options that actors may set."""
        return {"store_results", "track"}

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Record a job that was sent or deferred; a retry is recorded with the end of its attempt."""
        if "parked_ms" in message.options:
            self._note_parked(message)
            return
        if int(message.options.get("attempts", 0)) > 0 or not self._tracked(broker, message):
            return
        if delay is None:
            self._write(message, "queued", attempts=0, fields={})
            return
        reason = message.options.get("deferred_by", "delay")
        due_at = message.options.get("due_at", now_ms() + delay)
        self._write(message, "scheduled", attempts=0, fields={"next_attempt_at": due_at, "reason": reason})

    def _note_parked(self, message: Message[Any]) -> None:
        """Record a parked job, ordered before its next start and after its last."""
        waits = {"next_attempt_at": message.options.get("due_at", now_ms()), "reason": "parked"}
        attempts = int(message.options.get("attempts", 0))
        self._write(message, "scheduled", attempts=attempts, started=attempts + 1, fields=waits)

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Start to write in the background."""
        self._barrier.start()

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Write the remaining steps."""
        self._barrier.stop()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Record the start."""
        if self._tracked(broker, message):
            started = {"started_at": now_ms()}
            message.record_started = started  # type: ignore[attr-defined]
            make = partial(self._step, message, "running", attempts=attempt(message), fields=started)
            self._barrier.begin(message.message_id, make)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Record the end, or the retry."""
        if not self._tracked(broker, message):
            return
        outcome = outcome_of(message, exception)
        attempts = attempt(message)
        started = getattr(message, "record_started", None) or {}
        if outcome.kind == "retried":
            delay_ms = outcome.delay_ms or 0
            waits = {**started, "next_attempt_at": now_ms() + delay_ms, "error": _error(outcome.exception)}
            # A delay may be a year: the record must still be there when its message is due.
            self._write(message, "retrying", attempts=attempts, fields=waits, ttl_ms=LIVE_TTL_MS + delay_ms)
            return
        fields: dict[str, Any] = {**started, "finished_at": now_ms()}
        if outcome.kind == "dead":
            fields |= {"reason": outcome.reason, "error": _error(outcome.exception, outcome.refusal)}
            self._write(message, "dead", attempts=attempts, fields=fields, ttl_ms=DEAD_TTL_MS)
            return
        if outcome.kind == "succeeded" and self._keeps_results(broker, message):
            fields["result"] = result
        try:
            self._write(message, outcome.kind, attempts=attempts, fields=fields, ttl_ms=FINISHED_TTL_MS)
        except (TypeError, ValueError, RecursionError) as error:
            fact = "is too large" if isinstance(error, ResultTooLarge) else "is no JSON"
            names = {"job_id": message.message_id, "actor": message.actor_name}
            log.error(f"result {fact}, not kept", error=str(error), **names)
            fields |= {"error": _error(error), "result": None}
            self._write(message, outcome.kind, attempts=attempts, fields=fields, ttl_ms=FINISHED_TTL_MS)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Record a job that was cancelled before it started."""
        if outcome_of(message).kind != "cancelled" or not self._tracked(broker, message):
            return
        # Its worker may have died after it started: the end comes after that start.
        fields = {"finished_at": now_ms()}
        attempts = int(message.options.get("attempts", 0))
        details = {"attempts": attempts, "started": attempt(message), "ttl_ms": FINISHED_TTL_MS}
        self._write(message, "cancelled", fields=fields, **details)

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Record a job that no worker could start, unless it is parked."""
        if outcome_of(message, message._exception).kind == "deferred":
            return
        error = message._exception
        fields = {"finished_at": now_ms(), "reason": "permanent", "error": _error(error)}
        attempts = int(message.options.get("attempts", 0))
        # A parked message has recorded the step before its next start, so the end is recorded as a step of that start.
        self._write(message, "dead", attempts=attempts, started=attempts + 1, fields=fields, ttl_ms=DEAD_TTL_MS)

    def after_quarantine_message(self, broker: Broker, message: Message[Any], error: Exception) -> None:
        """Record a job whose message no worker of this release understands as dead."""
        if not self._tracked(broker, message):
            return
        fields = {"finished_at": now_ms(), "reason": "quarantined", "error": _error(error)}
        attempts = int(message.options.get("attempts", 0))
        self._write(message, "dead", attempts=attempts, started=attempts + 1, fields=fields, ttl_ms=DEAD_TTL_MS)

    def _write(self, message: Any, state: str, **details: Any) -> None:
        self._barrier.add(self._step(message, state, **details))

    def _step(
        self,
        message: Any,
        state: str,
        *,
        attempts: int,
        fields: dict[str, Any],
        ttl_ms: int = LIVE_TTL_MS,
        started: int | None = None,
    ) -> Step:
        generation = int(message.options.get("generation", 0))
        values = {
            "actor": message.actor_name,
            "queue": self._queue_of(message.queue_name),
            "enqueued_at": message.options.get("enqueued_at", message.message_timestamp),
            "attempts": attempts,
            **fields,
        }
        if owner := message.options.get("owner"):
            values["owner"] = str(owner)
        order = sequence(generation=generation, attempts=attempts if started is None else started, state=state)
        if attempts == 0 and "deferred_by" in message.options:
            order += 1  # a worker may be faster than the sender's own "queued"
        return step(message.message_id, sequence=order, state=state, fields=values, ttl_ms=ttl_ms)

    def _queue_of(self, lane: str) -> str:
        known = self._queues.get(lane)
        if known is None:
            known = self._queues[lane] = self._yard.queue_of(lane.removesuffix(".DQ")).name
        return known

    @staticmethod
    def _tracked(broker: Broker, message: Any) -> bool:
        return boolean_of(message, broker.actors.get(message.actor_name), "track", default=True)

    @staticmethod
    def _keeps_results(broker: Broker, message: Any) -> bool:
        return boolean_of(message, broker.actors.get(message.actor_name), "store_results", default=False)


def _error(exception: BaseException | None, refusal: str = "") -> dict[str, str] | None:
    if exception is None:
        return None
    return {"type": type(exception).__name__, "message": _speakable(error_text(exception, refusal)[:ERROR_CHARACTERS])}


def _speakable(text: str) -> str:
    """Return a text that UTF-8 can encode: an error may quote bytes that were decoded with surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()
