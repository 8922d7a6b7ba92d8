"""Retries: a failed message goes to its queue's retry lane, so that a storm of retries never delays live work."""

from __future__ import annotations

import random
from functools import partial
from typing import Any, ClassVar

import structlog
from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import Retry
from dramatiq.middleware import Middleware, TimeLimitExceeded

from broker.interface import Transport
from broker.topology import RetryPolicy, Yard
from broker.validation import LONGEST_DELAY_MS, is_delay, is_whole, takes_one_argument
from middleware.crashes import Poison, SuspectedPoison
from middleware.errors import ArgumentMismatch, CancelInterrupt, Cancelled, PermanentFailure, RetryLater
from middleware.option_rules import OptionRule, rule_of_both
from middleware.outcomes import SUCCEEDED, Outcome, attempt, decide
from middleware.wait_for_broker import retry_until_available

log = structlog.get_logger(__name__)

REFUSAL_CHARACTERS = 200


class Retries(Middleware):
    """Middleware that decides the outcome of an attempt, and moves a retried message to its retry lane.

    Option of an actor and of a message: ``max_retries``. Options of an actor: ``backoff`` (function from the retry's
    number to ms), ``permanent`` (exception classes that are never retried). Options that are left out come from the
    queue's policy. A ``backoff`` or ``permanent`` that fails is logged, and the policy decides.

    Listed after the middleware that read the outcome (:mod:`middleware.outcomes`): after-hooks run from last to first.
    While the broker is unavailable the move is retried and the worker's slot waits: an acknowledgement would lose the
    message.
    """

    option_rules: ClassVar = (
        rule_of_both("max_retries", lambda value: _of_max_retries(value), takes_none=False),
        OptionRule("backoff", lambda value, actor: _of_backoff(value)),
        OptionRule("permanent", lambda value, actor: _of_permanent(value)),
    )

    def __init__(self, *, yard: Yard, transport: Transport) -> None:
        self._yard = yard
        self._transport = transport

    @property
    def actor_options(self) -> set[str]:
        """Options that actors may set."""
        return {"max_retries", "backoff", "permanent"}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Mark the attempt as open, so that ``before_ack`` detects a missing end."""
        message.open = True  # type: ignore[attr-defined]

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Mark the attempt as not started."""
        message.open = False  # type: ignore[attr-defined]

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
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Decide the outcome, and move a retry to its lane."""
        outcome = decide(message, self._judge(broker, message, exception))
        if outcome.kind != "retried":
            # A dead message may still be lost until it is in its dead list.
            message.open = outcome.kind == "dead"  # type: ignore[attr-defined]
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
        ours = (PermanentFailure, ArgumentMismatch)
        if actor is None or isinstance(exception, ours) or _is_permanent(actor, exception):
            return Outcome("dead", "permanent", exception=exception)
        policy = self._yard.queue_of(message.queue_name).retry
        retry = attempt(message)
        if retry > max_retries_of(message, actor, policy):
            reason = "time_limit" if isinstance(exception, TimeLimitExceeded) else "exhausted"
            return Outcome("dead", reason, exception=exception)
        speed = self._yard.retry_speed
        delay_ms = delay_of(retry, policy, exception, actor.options.get("backoff"), speed=speed)
        return Outcome("retried", delay_ms=delay_ms, exception=exception)

    def _divert(self, message: MessageProxy, delay_ms: int) -> None:
        lane = self._yard.queue_of(message.queue_name).retry_lane
        options = {"attempts": attempt(message)}
        divert = partial(self._transport.divert, message, lane=lane, delay_ms=delay_ms, options=options)
        retry_until_available(divert, job_id=message.message_id, what="retry")


def delay_of(retry: int, policy: RetryPolicy, exception: BaseException, backoff: Any = None, *, speed: int = 1) -> int:
    """Return the delay before a retry, in ms.

    Equal jitter: half of the policy's delay, plus uniform up to the other half. Full jitter, uniform from zero, spreads
    a little more, but draws near zero spend the retries before an outage ends.

    A delay that another server asked for (``RetryLater``) is the least one. Dramatiq's ``Retry`` names the actor's own
    delay, which takes precedence. Up to the first retry's delay is added to both, so that messages that were refused
    together do not come back together. An unusable delay or function is ignored.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Args:
        retry: Its number, from 1.
        backoff: The actor's own function; it takes precedence over the policy's.
        speed: Divisor of the policy's delays; delays that are asked for are real time.
    """
    asked_ms = exception.delay if isinstance(exception, Retry) else None
    if asked_ms is None or not is_delay(asked_ms):
        return _scheduled(retry, policy, backoff) // speed
    spread_ms = int(asked_ms) + random.randint(0, policy.longest_ms(1) // speed)  # noqa: S311  no secret
    if not isinstance(exception, RetryLater):
        return spread_ms
    return max(spread_ms, _scheduled(retry, policy, backoff) // speed)


def max_retries_of(message: Any, actor: Actor[..., Any], policy: RetryPolicy) -> int:
    """Return how often a message is retried: its own ``max_retries``, else its actor's, else its queue's."""
    values: list[Any] = [message.options.get("max_retries"), actor.options.get("max_retries"), policy.retries]
    return int(next(value for value in values if is_whole(value)))


def span_of(actor: Actor[..., Any], policy: RetryPolicy) -> tuple[int, int]:
    """Return the least and the most time in ms from an actor's first failure to its last retry."""
    return policy.span_ms(retries=actor.options.get("max_retries"), backoff=actor.options.get("backoff"))


def _scheduled(retry: int, policy: RetryPolicy, backoff: Any) -> int:
    for own in (backoff, policy.backoff):
        if own is not None and (own_ms := _own_delay(own, retry)) is not None:
            return own_ms
    longest_ms = policy.longest_ms(retry)
    return random.randint(longest_ms // 2, longest_ms)  # noqa: S311  no secret


def _own_delay(backoff: Any, retry: int) -> int | None:
    """Return the delay of a function of the project, ``None`` when it fails: a retry must not be lost for it."""
    try:
        delay_ms = backoff(retry)
    except Exception:
        log.exception("backoff failed, the queue's policy decides", retry=retry)
        return None
    if is_delay(delay_ms):
        return int(delay_ms)
    fact = f"backoff returned {delay_ms!r:.100}, not 0 to {LONGEST_DELAY_MS} ms"
    log.error("backoff failed, the queue's policy decides", retry=retry, error=fact)
    return None


def _is_permanent(actor: Actor[..., Any], exception: BaseException) -> bool:
    """Return whether an actor declared an exception as permanent."""
    classes = actor.options.get("permanent")
    if not classes:
        return False
    try:
        return isinstance(exception, tuple(classes))
    except Exception:
        log.exception("permanent failed, the queue's policy decides", actor=actor.actor_name)
        return False


def _of_max_retries(value: Any) -> str:
    return "" if is_whole(value) else "write a number of retries, 0 for none; there are no retries without end"


def _of_backoff(value: Any) -> str:
    return "" if takes_one_argument(value) else "write a function of one argument, the number of the retry"


def _of_permanent(value: Any) -> str:
    if isinstance(value, type) and issubclass(value, BaseException):
        return f"write permanent=({value.__name__},)"
    usable = isinstance(value, tuple | list) and all(
        isinstance(each, type) and issubclass(each, BaseException) for each in value
    )
    return "" if usable else "write a tuple of exception classes, such as permanent=(ValueError,)"
