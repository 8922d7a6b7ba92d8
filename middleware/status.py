"""Status: the state of each job and its ended attempts; results only where ``store_results`` is set."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any, ClassVar

from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.clock import now_ms
from switchyard.broker.queue.results import NO_ROW, HistoryRow
from switchyard.broker.stores.ended_jobs import EndedJob, Failure, encode, encode_rows, kept_body
from switchyard.broker.stores.job_steps import LiveJob, Step, WorkerPlace, ended_step, live_step, sequence, success_step
from switchyard.broker.stores.result_stores import ResultStores
from switchyard.broker.topology import Yard
from switchyard.broker.worker.ack_barrier import AckBarrier
from switchyard.middleware.attempt_records import (
    ALWAYS,
    ActorRecords,
    KeptLogs,
    RecordOptions,
    body_of,
    failure_of,
    record_rules,
    result_of,
)
from switchyard.middleware.option_rules import boolean_of
from switchyard.middleware.outcomes import SUCCEEDED, Outcome, attempt, outcome_of


class Status(Middleware):
    """Middleware that records each step of a job that the broker does not know by itself: started, ended.

    The broker writes the steps before it acknowledges their messages. Where it does not find waiting messages by their
    id, a job is recorded when it is enqueued, too.

    Options of actors and messages are in :mod:`switchyard.middleware.attempt_records`; of a message ``owner``, who may
    see the job.
    """

    option_rules: ClassVar = record_rules()
    actor_options = {rule.name for rule in option_rules}

    def __init__(
        self,
        *,
        yard: Yard,
        barrier: AckBarrier,
        finds_waiting: bool = True,
        history_bytes: int = 0,
        results: ResultStores | None = None,
    ) -> None:
        self._yard, self._barrier = yard, barrier
        self._results = results or ResultStores()
        self._finds_waiting = finds_waiting
        self._history_bytes = history_bytes
        self._queues: dict[str, str] = {}
        self._kept, self._logs = ActorRecords(), KeptLogs()
        if finds_waiting:
            barrier.row_of = self._row_of

    def after_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Take the options of an actor of a name that was declared before."""
        self._kept.forget(actor.actor_name)

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Write on the message that its actor keeps no record: its message would be one."""
        if "track" not in message.options and not self._kept.of(broker, message.actor_name).track:
            message.options["track"] = False

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Record a job that was sent or deferred; a retry is recorded with the end of its attempt."""
        options = message.options
        if self._finds_waiting and not (options.keys() & LATER_LIFE):
            return
        if "parked_ms" in options:
            self._note_parked(message)
            return
        if int(options.get("attempts", 0)) > 0 or not self._kept.tracked(broker, message):
            return
        if delay is None:
            self._add_waiting(message, "queued")
        else:
            due_at, reason = options.get("due_at", now_ms() + delay), options.get("deferred_by", "delay")
            self._add_waiting(message, "scheduled", reason=reason, next_attempt_at=due_at)

    def _note_parked(self, message: Message[Any]) -> None:
        """Record a parked job, ordered before its next start and after its last."""
        attempts = int(message.options.get("attempts", 0))
        due_at = message.options.get("due_at", now_ms())
        self._add_waiting(message, "scheduled", started=attempts + 1, reason="parked", next_attempt_at=due_at)

    def _add_waiting(self, message: Message[Any], state: str, *, started: int | None = None, **details: Any) -> None:
        attempts, generation = int(message.options.get("attempts", 0)), int(message.options.get("generation", 0))
        order = sequence(generation=generation, attempts=attempts if started is None else started, state=state)
        if attempts == 0 and "deferred_by" in message.options:
            order += 1  # a worker may be faster than the sender's own "queued"
        live = self._live(message, state, attempts=attempts, **details)
        self._barrier.add(live_step(self._queue_of(message.queue_name), live, order=order))

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        if not self._barrier.worker_place.worker:
            worker_name = f"{socket.gethostname()}:{os.getpid()}"
            self._barrier.worker_place = self._barrier.worker_place._replace(worker=worker_name)
        logging.getLogger().addHandler(self._logs)
        self._results.prepare()
        self._barrier.start()

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        logging.getLogger().removeHandler(self._logs)
        self._barrier.stop()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if self._kept.tracked(broker, message):
            self._barrier.begin(message, self._running)

    def _running(self, message: MessageProxy) -> Step:
        started_at = getattr(message, "started_ms", None)
        live = self._live(message, "running", attempts=attempt(message), started_at=started_at)
        return live_step(self._queue_of(message.queue_name), live)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        try:
            outcome = outcome_of(message, exception)
            if outcome is SUCCEEDED and self._kept.succeeds_plainly(message):
                queue, body = self._queue_of(message.queue_name), kept_body(body_of(message))
                self._barrier.add(success_step(queue, message, self._barrier.worker_place, body))
            elif self._kept.tracked(broker, message):
                self._record_end(broker, message, result, outcome)
        finally:
            self._logs.drop(message)

    def _record_end(self, broker: Broker, message: MessageProxy, result: Any, outcome: Outcome) -> None:
        kept = self._kept.of(broker, message.actor_name)
        if outcome.kind == "retried":
            self._add_retried(message, kept, outcome.exception, outcome.delay_ms or 0)
            return
        if outcome.kind == "dead":
            error = failure_of(message, outcome.exception, outcome.refusal)
            self._end(message, kept, "dead", reason=outcome.reason, error=error)
            return
        text, kept_in, refused, kept_ms = None, "", None, 0
        if outcome.kind == "succeeded" and boolean_of(message, kept.actor, "store_results", default=False):
            kept_ms = message.options.get("result_ttl") or kept.result_ttl
            text, kept_in, refused = result_of(message, result, self._results, keep_ms=kept_ms)
        self._end(message, kept, outcome.kind, result=text, error=refused, kept_ms=kept_ms, kept_in=kept_in)

    def _row_of(self, message: MessageProxy) -> HistoryRow:
        """Return the row of an attempt that ends with the move of its message: no kill comes between the two."""
        outcome = getattr(message, "outcome", None)
        if not isinstance(outcome, Outcome) or outcome.kind not in ("retried", "dead"):
            return NO_ROW
        state, kept = "retrying" if outcome.kind == "retried" else "dead", self._kept.get(message.actor_name, ALWAYS)
        if not message.options.get("track", kept.track) or not self._in_history(message, kept, state):
            return NO_ROW
        error, reason = failure_of(message, outcome.exception, outcome.refusal), outcome.reason
        ended = self._ended(message, state, attempts=attempt(message), reason=reason, error=error)
        return HistoryRow(encode_rows([encode(ended)]), self._history_bytes)

    def _add_retried(
        self, message: MessageProxy, kept: RecordOptions, exception: BaseException | None, delay_ms: int
    ) -> None:
        attempts, queue, error = attempt(message), self._queue_of(message.queue_name), failure_of(message, exception)
        ended = self._ended(message, "retrying", attempts=attempts, error=error)
        rows: tuple[bytes, ...] = ()
        if self._in_history(message, kept, "retrying") and not self._has_row(message):
            rows = ended_step(queue, ended).rows
        live = self._live(
            message,
            "retrying",
            attempts=attempts,
            started_at=ended.started_at,
            next_attempt_at=now_ms() + delay_ms,
            error=error and Failure(error.type, error.message),
        )
        self._barrier.add(live_step(queue, live, rows=rows))

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Record a job that was cancelled, or too old, before it started."""
        self._logs.drop(message)
        outcome = outcome_of(message)
        if outcome.kind in ("cancelled", "expired") and self._kept.tracked(broker, message):
            kept = self._kept.of(broker, message.actor_name)
            self._end_unstarted(message, kept, outcome.kind, reason=outcome.reason)

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Record a job that no worker could start, unless it is parked."""
        if outcome_of(message, message._exception).kind != "deferred":
            error = failure_of(message, message._exception)
            self._end_unstarted(message, ALWAYS, "dead", reason="permanent", error=error)

    def after_quarantine_message(self, broker: Broker, message: Message[Any], error: Exception) -> None:
        """Record a job whose message no worker of this release understands as dead."""
        if self._kept.tracked(broker, message):
            failure = failure_of(message, error)
            self._end_unstarted(message, ALWAYS, "dead", reason="quarantined", error=failure)

    def _end_unstarted(self, message: Any, kept: RecordOptions, state: str, **details: Any) -> None:
        """Record the end as a step of the start that did not come: it may have, in a worker that died since."""
        attempts = int(message.options.get("attempts", 0))
        self._end(message, kept, state, attempts=attempts, started=attempts + 1, **details)

    def _end(
        self,
        message: Any,
        kept: RecordOptions,
        state: str,
        *,
        attempts: int | None = None,
        started: int | None = None,
        kept_ms: int = 0,
        **details: Any,
    ) -> None:
        attempts = attempt(message) if attempts is None else attempts
        ended = self._ended(message, state, attempts=attempts, **details)
        order = None if started is None else sequence(generation=ended.generation, attempts=started, state=state)
        in_history = self._in_history(message, kept, state) and not (state == "dead" and self._has_row(message))
        queue = self._queue_of(message.queue_name)
        marked = message.options.get("track") is True  # sent with a job id of its own
        step = ended_step(queue, ended, order=order, in_history=in_history, kept_ms=kept_ms, marked=marked)
        self._barrier.add(step)

    def _ended(
        self,
        message: Any,
        state: str,
        *,
        attempts: int,
        reason: str = "",
        error: Failure | None = None,
        result: str | None = None,
        kept_in: str = "",
    ) -> EndedJob:
        pool, worker, release = self._barrier.worker_place
        return EndedJob(
            message.message_id,
            state,
            reason,
            attempts,
            int(message.options.get("generation", 0)),
            getattr(message, "started_ms", None),
            now_ms(),
            error,
            result,
            self._logs_of(message, state),
            message.queue_name,
            pool,
            worker,
            release,
            kept_body(body_of(message)),
            kept_in,
        )

    def _logs_of(self, message: Any, state: str) -> str | None:
        kept = self._kept.get(message.actor_name, ALWAYS)
        return self._logs.of(message, kept.actor) if kept.keep_logs or state in ("retrying", "dead") else None

    def _live(self, message: Any, state: str, *, attempts: int, **details: Any) -> LiveJob:
        pool, worker, release = self._barrier.worker_place if attempts else WorkerPlace()
        return LiveJob(
            message.message_id,
            state,
            attempt=attempts,
            generation=int(message.options.get("generation", 0)),
            lane=message.queue_name,
            pool=pool,
            worker=worker,
            release=release,
            message="" if self._finds_waiting else str(kept_body(body_of(message)), "utf-8"),
            **details,
        )

    def _in_history(self, message: Any, kept: RecordOptions, state: str) -> bool:
        # Sent with a job id of its own: the history tells a repetition that it was enqueued.
        return message.options.get("track") is True or kept.in_history(message.message_id, state)

    def _has_row(self, message: Any) -> bool:
        """Return whether the move of a message wrote its row, or found that its lease was lost."""
        moved = getattr(message, "moved", False) is True
        return self._finds_waiting and moved and isinstance(getattr(message, "outcome", None), Outcome)

    def _queue_of(self, lane: str) -> str:
        if lane not in self._queues:
            self._queues[lane] = self._yard.queue_of(lane.removesuffix(".DQ")).name
        return self._queues[lane]


# Options of a message that is not sent for the first time.
LATER_LIFE = frozenset({"attempts", "generation", "deferred_by", "parked_ms"})
