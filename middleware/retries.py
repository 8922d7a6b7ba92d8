"""Retries: a failed message goes to its queue's retry lane, so that a storm of retries never delays live work."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import structlog
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import Retry
from dramatiq.middleware import Middleware, TimeLimitExceeded

from broker.interface import Transport
from broker.topology import RetryPolicy, Yard
from middleware.crashes import Poison
from middleware.errors import ArgumentMismatch, CancelInterrupt, Cancelled, PermanentFailure
from middleware.outcomes import SUCCEEDED, Outcome, attempt, decide
from middleware.wait_for_broker import hold

log = structlog.get_logger(__name__)


class Retries(Middleware):
    """Decide how a failed attempt ends, and divert it when it is to run again.

    Options of an actor: ``max_retries``, ``backoff`` (function from the retry's number to ms), ``permanent``
    (exception classes that are never retried). What an actor leaves out, its queue's policy says.

    Listed after what reads the outcome (:mod:`middleware.outcomes`): after-hooks run from last to first. While the
    broker is away the worker's slot is held, because a message that is neither diverted nor held would be lost.
    """

    def __init__(self, *, yard: Yard, transport: Transport) -> None:
        self._yard = yard
        self._transport = transport

    @property
    def actor_options(self) -> set[str]:
        """Options that actors may set."""
        return {"max_retries", "backoff", "permanent"}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Note that the attempt began, so that its end can be missed."""
        message.open = True  # type: ignore[attr-defined]

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Note that the attempt did not take place."""
        message.open = False  # type: ignore[attr-defined]

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        """End an attempt whose end something interrupted, such as a time limit; acknowledged now it would be lost.

        Dramatiq acknowledges a message even if a ``BaseException`` leaves its after-hooks.
        """
        if getattr(message, "open", False) and not getattr(message, "dead_lettered", False):
            cause = message._exception or RuntimeError("the end of the attempt was interrupted")
            names = {"job_id": message.message_id, "actor": message.actor_name}
            log.error("interrupted at its end", exception=type(cause).__name__, **names)
            broker.emit_after("process_message", message, exception=cause)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Decide, and divert."""
        outcome = decide(message, self._judge(broker, message, exception))
        if outcome.kind != "retried":
            # Until it is dead_lettered, a dead one may still be lost.
            message.open = outcome.kind == "dead"  # type: ignore[attr-defined]
            return
        try:
            self._divert(message, outcome.delay_ms or 0)
            message.open = False  # type: ignore[attr-defined]
        except Exception as refusal:  # noqa: BLE001  any hook may refuse; the message must end somewhere
            log.error("retry refused", job_id=message.message_id, actor=message.actor_name, refusal=repr(refusal))
            decide(message, Outcome("dead", "exhausted", exception=exception))

    def _judge(self, broker: Broker, message: MessageProxy, exception: BaseException | None) -> Outcome:
        if exception is None:
            return SUCCEEDED
        # Whatever a job fails with that was asked to stop: nobody wants it again.
        if isinstance(exception, (Cancelled, CancelInterrupt)) or getattr(message, "cancel_requested", False):
            return Outcome("cancelled", exception=exception)
        actor = broker.actors.get(message.actor_name)
        options = actor.options if actor else {}
        if isinstance(exception, Poison):
            return Outcome("dead", "poison", exception=exception)
        permanent = (PermanentFailure, ArgumentMismatch, *options.get("permanent", ()))
        if actor is None or isinstance(exception, permanent):
            return Outcome("dead", "permanent", exception=exception)
        policy = self._yard.queue_of(message.queue_name).retry
        retry = attempt(message)
        if retry > _first(options.get("max_retries"), policy.max_retries):
            reason = "time_limit" if isinstance(exception, TimeLimitExceeded) else "exhausted"
            return Outcome("dead", reason, exception=exception)
        delay_ms = delay_of(retry, policy, exception, options.get("backoff"))
        return Outcome("retried", delay_ms=delay_ms, exception=exception)

    def _divert(self, message: MessageProxy, delay_ms: int) -> None:
        lane = self._yard.queue_of(message.queue_name).retry_lane
        options = {"attempts": attempt(message)}
        divert = partial(self._transport.divert, message, lane=lane, delay_ms=delay_ms, options=options)
        hold(divert, job_id=message.message_id, what="retry")


def delay_of(retry: int, policy: RetryPolicy, exception: BaseException, backoff: Any = None) -> int:
    """Return the delay before a retry, in ms.

    Exponential backoff with full jitter: uniform between zero and ``base × 2^(retry-1)``, capped.
    An exception that says when to come back (``Retry-After``) is obeyed, with up to ``base`` on top so that those
    who were sent away together do not come back together.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Args:
        retry: Its number, from 1.
        backoff: An actor's own function; it goes before the policy's.
    """
    if isinstance(exception, Retry) and exception.delay is not None:
        return exception.delay + random.randint(0, policy.base_ms)  # noqa: S311  no secret
    own = backoff or policy.backoff
    if own is not None:
        return int(own(retry))
    highest_ms = min(policy.cap_ms, policy.base_ms * 2 ** min(retry - 1, 30))
    return random.randint(0, highest_ms)  # noqa: S311  no secret


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)
