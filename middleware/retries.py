"""Retries: a failed message goes to its queue's retry lane, so that a storm of retries never delays live work."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, TimeLimitExceeded

from switchyard.broker.interface import Transport
from switchyard.broker.topology import Yard
from switchyard.loggers import get_logger
from switchyard.middleware.crashes import Poison, SuspectedPoison
from switchyard.middleware.errors import ArgumentMismatch, CancelInterrupt, Cancelled, PermanentFailure
from switchyard.middleware.follow_ups import fields_of, follow_up_of, traceback_of
from switchyard.middleware.outcomes import SUCCEEDED, Outcome, attempt, decide
from switchyard.middleware.retry_options import (
    bounds_of,
    delay_of,
    is_never_retried,
    is_retried,
    max_retries_of,
    retry_rules,
)
from switchyard.middleware.wait_for_broker import retry_until_available

log = get_logger(__name__)

REFUSAL_CHARACTERS = 200


class Retries(Middleware):
    """Middleware that decides the outcome of an attempt, and moves a retried message to its retry lane.

    Options of an actor and of a message: ``max_retries``, ``min_backoff``, ``max_backoff`` (ms), ``on_retry_exhausted``
    (name of the actor that gets a message after the last retry). Options of an actor: ``backoff`` (function from the
    retry's number to ms), ``retry_when`` (function from retries and exception to whether it is retried), ``permanent``
    and ``throws`` (exception classes that are never retried; those of ``throws`` are not logged as errors). Options
    that are left out come from the queue's policy. A function that fails is logged, and the policy decides.

    A task that was interrupted because its worker stops is always retried, at once.

    Listed after the middleware that read the outcome (:mod:`switchyard.middleware.outcomes`): after-hooks run from last
    to first. While the broker is unavailable the move is retried and the worker's slot waits: an acknowledgement would
    lose the message.
    """

    option_rules: ClassVar = retry_rules()
    actor_options = {rule.name for rule in option_rules}

    def __init__(self, *, yard: Yard, transport: Transport) -> None:
        self._yard = yard
        self._transport = transport

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Mark the attempt as open, so that ``before_ack`` detects a missing end; say how many retries there were."""
        message.open = True  # type: ignore[attr-defined]
        if attempts := message.options.get("attempts"):
            message.options["retries"] = attempts  # as Dramatiq names it, for actors that read their own message

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Mark the attempt as not started; one that a middleware of the project skips is cancelled."""
        message.open = False  # type: ignore[attr-defined]
        if not message.failed and not isinstance(getattr(message, "outcome", None), Outcome):
            decide(message, Outcome("cancelled", "skipped"))

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        """End an attempt whose after-hooks were interrupted, as by a time limit; an acknowledgement would lose it.

        Dramatiq acknowledges a message even if a ``BaseException`` leaves its after-hooks.
        """
        if getattr(message, "open", False) and not getattr(message, "dead_lettered", False):
            cause = message._exception or RuntimeError("the end of the attempt was interrupted")
            names = {"job_id": message.message_id, "actor": message.actor_name}
            log.error("end of attempt interrupted", exception=type(cause).__name__, **names)
            broker.emit_after("process_message", message, exception=cause)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        outcome = decide(message, self._judge(broker, message, exception))
        if outcome.kind != "retried":
            # A dead message may still be lost until it is in its dead list.
            message.open = outcome.kind == "dead"  # type: ignore[attr-defined]
            if outcome.kind == "dead" and outcome.reason in ("exhausted", "time_limit"):
                self._tell_exhausted(broker, message, outcome)
            return
        try:
            self._divert(message, outcome.delay_ms or 0)
            message.open = False  # type: ignore[attr-defined]
        except Exception as refusal:  # noqa: BLE001  any hook may refuse; the message must end somewhere
            log.error("retry refused", job_id=message.message_id, actor=message.actor_name, refusal=repr(refusal))
            why = repr(refusal)[:REFUSAL_CHARACTERS]
            decide(message, Outcome("dead", "exhausted", exception=exception, refusal=why))

    def _judge(self, broker: Broker, message: MessageProxy, exception: BaseException | None) -> Outcome:
        if exception is None:
            return SUCCEEDED
        # Any failure of a cancelled job: it is not retried.
        if isinstance(exception, (Cancelled, CancelInterrupt)) or getattr(message, "cancel_requested", False):
            return Outcome("cancelled", exception=exception)
        actor = broker.actors.get(message.actor_name)
        if isinstance(exception, (Poison, SuspectedPoison)):
            reason = "poison" if isinstance(exception, Poison) else "suspected_poison"
            return Outcome("dead", reason, exception=exception)
        if actor is None or isinstance(exception, (PermanentFailure, ArgumentMismatch)):
            return Outcome("dead", "permanent", exception=exception)
        if getattr(message, "shut_down", False):
            return Outcome("retried", delay_ms=0, exception=exception)
        thrown = is_never_retried(actor, exception, "throws")
        if thrown or is_never_retried(actor, exception, "permanent"):
            return Outcome("dead", "permanent", exception=exception, expected=thrown)
        policy = self._yard.queue_of(message.queue_name).retry
        retry = attempt(message)
        if not is_retried(message, actor, policy, exception, retry):
            reason = "time_limit" if isinstance(exception, TimeLimitExceeded) else "exhausted"
            return Outcome("dead", reason, exception=exception)
        bounds, speed = bounds_of(message, actor, policy), self._yard.retry_speed
        delay_ms = delay_of(retry, policy, exception, actor.options.get("backoff"), bounds=bounds, speed=speed)
        return Outcome("retried", delay_ms=delay_ms, exception=exception)

    def _tell_exhausted(self, broker: Broker, message: MessageProxy, outcome: Outcome) -> None:
        """Send the message of ``on_retry_exhausted``, before the dead letter: a repetition has the same id."""
        actor = broker.actors[message.actor_name]
        target = message.options.get("on_retry_exhausted") or actor.options.get("on_retry_exhausted")
        if not target:
            return
        most = max_retries_of(message, actor, self._yard.queue_of(message.queue_name).retry)
        retries = attempt(message) - 1
        data = fields_of(message)
        data["options"] = {**data["options"], "retries": retries + 1, "traceback": traceback_of(outcome.exception)}
        info = {"retries": retries, "max_retries": None if most == math.inf else int(most)}
        follows = follow_up_of(broker, message, target, "on_retry_exhausted", (data, info))
        retry_until_available(partial(broker.enqueue, follows), job_id=message.message_id, what="on_retry_exhausted")

    def _divert(self, message: MessageProxy, delay_ms: int) -> None:
        lane = self._yard.queue_of(message.queue_name).retry_lane
        options = {"attempts": attempt(message)}
        divert = partial(self._transport.divert, message, lane=lane, delay_ms=delay_ms, options=options)
        retry_until_available(divert, job_id=message.message_id, what="retry")
