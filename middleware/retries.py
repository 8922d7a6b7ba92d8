"""Retries: a failed message goes to its queue's retry lane, so that a storm of retries never delays live work."""

import math
import random
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Final

from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.common import compute_backoff
from dramatiq.errors import Retry
from dramatiq.middleware import Middleware, TimeLimitExceeded
from msgspec.structs import replace

from switchyard.broker.interface import Transport
from switchyard.broker.topology import (
    LONGEST_DELAY_MS,
    MOST_COUNTED,
    RetryPolicy,
    Yard,
    is_delay,
    is_whole,
    takes_arguments,
)
from switchyard.loggers import get_logger
from switchyard.middleware import errors
from switchyard.middleware.callbacks import call_back, fields_of, report_failure, target_of
from switchyard.middleware.circuits import Circuits
from switchyard.middleware.crashes import Poison, SuspectedPoison
from switchyard.middleware.options import actor_name, rule_of_actor, rule_of_both, takes
from switchyard.middleware.outcomes import SUCCEEDED, Outcome, attempt, decide, text_of, traceback_of
from switchyard.middleware.wait_for_broker import retry_until_available

log = get_logger(__name__)

# Longest delay between bounds of an actor or a message, as in Dramatiq.
LONGEST_BOUND_MS: Final = 7 * 24 * 3_600_000
# Options of an actor that change how long its retries last.
RETRY_DELAYS: Final = frozenset({"max_retries", "backoff", "min_backoff", "max_backoff"})


def max_retries_of(message: Any, actor: Actor[..., Any], policy: RetryPolicy) -> float:
    """Return how often a message is retried, by itself, its actor or its queue; infinity for ``None``."""
    for options in (message.options, actor.options):
        if "max_retries" not in options:
            continue
        value = options["max_retries"]
        if value is None:
            return math.inf
        if is_whole(value):
            return int(value)
    return policy.retries


def is_retried(message: Any, actor: Actor[..., Any], policy: RetryPolicy, exception: BaseException, retry: int) -> bool:
    """Return whether a failed message is retried: by ``retry_when`` of its actor, else by its number of retries.

    ``retry`` counts from 1; the function gets the number of retries that there were.
    """
    decides = actor.options.get("retry_when")
    if decides is not None:
        try:
            return bool(decides(retry - 1, exception))
        except Exception:
            log.exception("retry_when failed, max_retries decides", actor=actor.actor_name)
    return retry <= max_retries_of(message, actor, policy)


def is_never_retried(actor: Actor[..., Any], exception: BaseException, option: str) -> bool:
    """Return whether an actor declared an exception in ``permanent`` or ``throws``."""
    classes = actor.options.get(option)
    if not classes:
        return False
    try:
        return isinstance(exception, classes if isinstance(classes, type) else tuple(classes))
    except Exception:
        log.exception(f"{option} failed, the queue's policy decides", actor=actor.actor_name)
        return False


def delay_of(
    retry: int,
    policy: RetryPolicy,
    exception: BaseException,
    backoff: Any = None,
    *,
    bounds: tuple[int, int] | None = None,
    speed: int = 1,
) -> int:
    """Return the delay before a retry (counted from 1), in ms.

    Equal jitter: half of the policy's delay, plus uniform up to the other half; draws near zero, as full jitter has
    them, would spend the retries before an outage ends (M. Brooker, "Exponential Backoff And Jitter", 2015). The
    actor's own ``backoff`` goes before the policy's, and ``bounds`` before both: between them the delay is Dramatiq's.

    A delay that another server asked for (``RetryLater``) is the least one; that of Dramatiq's ``Retry`` is the delay.
    Up to the first retry's delay is added to both: messages that were refused together do not come back together. An
    unusable delay or function is ignored. ``speed`` divides delays that are not asked for.
    """
    asked_ms = exception.delay if isinstance(exception, Retry) else None
    if asked_ms is None or not is_delay(asked_ms):
        return _scheduled(retry, policy, backoff, bounds) // speed
    spread_ms = int(asked_ms) + random.randint(0, policy.longest_ms(1) // speed)  # noqa: S311  no secret
    if not isinstance(exception, errors.RetryLater):
        return spread_ms
    return max(spread_ms, _scheduled(retry, policy, backoff, bounds) // speed)


def bounds_of(options: Mapping[str, Any], actor: Actor[..., Any], policy: RetryPolicy) -> tuple[int, int] | None:
    """Return the bounds of a message's delays: ``min_backoff`` and ``max_backoff`` of its options, else its actor's.

    One of the two that is left out is its queue's. ``None`` without either, or with a ``backoff`` of the actor alone.
    """
    own, declared = _bounds(options), _bounds(actor.options)
    if own == NEITHER and ("backoff" in actor.options or declared == NEITHER):
        return None
    least, most = (mine if mine is not None else its for mine, its in zip(own, declared, strict=True))
    least = policy.longest_ms(1) if least is None else least
    most = max(policy.longest_ms(MOST_COUNTED), least) if most is None else most
    return least, min(most, LONGEST_BOUND_MS)


def span_of(actor: Actor[..., Any], policy: RetryPolicy) -> tuple[int, int]:
    """Return the least and the most time in ms from first failure to last retry; without end the first 1,000 count."""
    own = actor.options.get("max_retries", policy.retries)
    retries = MOST_COUNTED if own is None else own
    bounds = bounds_of({}, actor, policy)
    if bounds is None:
        return policy.span_ms(retries=retries, backoff=actor.options.get("backoff"))
    spans = list(_spans(bounds, min(retries, MOST_COUNTED)))
    return sum(least for least, _ in spans), sum(most for _, most in spans)


NEITHER: Final = (None, None)


def _bounds(options: Any) -> tuple[int | None, int | None]:
    least, most = options.get("min_backoff"), options.get("max_backoff")
    return int(least) if is_delay(least) else None, int(most) if is_delay(most) else None


def _spans(bounds: tuple[int, int], retries: int) -> Iterator[tuple[int, int]]:
    least, most = bounds
    for retry in range(retries):
        base_ms = least * 2 ** min(retry, 32)
        yield (base_ms, 2 * base_ms) if 2 * base_ms <= most else (min(base_ms, most // 2), most)


def _scheduled(retry: int, policy: RetryPolicy, backoff: Any, bounds: tuple[int, int] | None) -> int:
    if bounds is not None:
        least, most = bounds
        return compute_backoff(retry - 1, factor=least, max_backoff=most)[1]
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


def _is_exception(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _are_exceptions(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(_is_exception(each) for each in value)


def _of_retry_when(value: Any) -> str:
    if _is_exception(value):  # calling it makes an exception, which is true
        return f"write retry_when=lambda retries, exception: isinstance(exception, {value.__name__})"
    remedy = "write a function of two arguments, the number of retries so far and the exception"
    return "" if takes_arguments(value, 2) else remedy


def _of_permanent(value: Any) -> str:
    if _is_exception(value):
        return f"write permanent=({value.__name__},)"
    return "" if _are_exceptions(value) else "write a tuple of exception classes, such as permanent=(ValueError,)"


_of_bound = takes(is_delay, f"write milliseconds, from 0 to {LONGEST_DELAY_MS}")
RULES: Final = (
    rule_of_both(
        "max_retries",
        takes(
            lambda value: value is None or is_whole(value),
            "write a number of retries, 0 for none, None for retries without end",
        ),
        takes_none=False,
    ),
    rule_of_both("min_backoff", _of_bound),
    rule_of_both("max_backoff", _of_bound),
    rule_of_both("on_retry_exhausted", actor_name),
    rule_of_actor(
        "backoff",
        takes(lambda value: takes_arguments(value, 1), "write a function of one argument, the number of the retry"),
    ),
    rule_of_actor("retry_when", _of_retry_when),
    rule_of_actor("permanent", _of_permanent),
    rule_of_actor(
        "throws",
        takes(
            lambda value: _is_exception(value) or _are_exceptions(value),
            "write an exception class, or a tuple of them, such as throws=(ValueError,)",
        ),
    ),
)
REFUSAL_CHARACTERS = 200


class Retries(Middleware):
    """Middleware that decides the outcome of an attempt, and moves a retried message to its retry lane.

    Its options are in :data:`RULES`; those that are left out come from the queue's policy, which also decides where a
    function of the project fails. A task that was interrupted because its worker stops is always retried, at once. One
    that fails because what it calls is down (:mod:`switchyard.middleware.circuits`) waits for that, no attempt spent.

    Sends ``on_failure`` and ``on_retry_exhausted`` between the two: a deferral is no failure, and a message that has
    moved is not repeated if its worker dies. Listed after the middleware that read the outcome. While the broker is
    unavailable the worker's slot waits: an acknowledgement would lose the message.
    """

    option_rules: ClassVar = RULES
    actor_options = {rule.name for rule in option_rules}

    def __init__(self, *, yard: Yard, transport: Transport, circuits: Circuits | None = None) -> None:
        self._yard = yard
        self._circuits = circuits
        self._transport = transport

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Mark the attempt as open, so that ``before_ack`` detects a missing end; note the number of retries."""
        message.open = True  # type: ignore[attr-defined]
        if attempts := message.options.get("attempts"):
            message.options["retries"] = attempts  # as Dramatiq names it, for actors that read their own message

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Mark the attempt as not started; one that a middleware of the project skips is cancelled."""
        message.open = False  # type: ignore[attr-defined]
        if not message.failed and not isinstance(getattr(message, "outcome", None), Outcome):
            decide(message, Outcome("cancelled", "skipped"))

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        """End an attempt whose after-hooks a ``BaseException`` has left: Dramatiq acknowledges it all the same."""
        if getattr(message, "open", False) and not getattr(message, "dead_lettered", False):
            cause = message._exception or RuntimeError("the end of the attempt was interrupted")
            names = {"job_id": message.message_id, "actor": message.actor_name}
            log.error("end of attempt interrupted", exception=type(cause).__name__, **names)
            broker.emit_after("process_message", message, exception=cause)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        outcome = self._judge(broker, message, exception)
        if self._circuits is not None and (exception is not None or getattr(message, "circuit", None)):
            waits = self._circuits.defers(broker, message, exception)
            if waits and (outcome.kind == "retried" or outcome.reason in ("exhausted", "time_limit")):
                outcome = Outcome("deferred", waits, delay_ms=0, exception=exception)
        if exception is not None and outcome.kind != "deferred":
            outcome = self._call_back(broker, message, outcome, exception)
        decide(message, outcome)
        if outcome.kind not in ("retried", "deferred"):
            # A dead message may still be lost until it is in its dead list.
            message.open = outcome.kind == "dead"  # type: ignore[attr-defined]
            return
        if outcome.exception is not None:
            text_of(outcome.exception)  # by the actor's code, which has a limit now
        try:
            how: dict[str, Any] = {"delay_ms": outcome.delay_ms or 0}
            if outcome.kind == "deferred":
                # To its lane as it was, no attempt spent: its next fetch puts it off, where it has no delay.
                how |= {"options": {"deferred_by": outcome.reason}}
                retry_until_available(message, outcome.reason, self._transport.defer, message, **how)
            else:
                lane = self._yard.queue_of(message.queue_name).retry_lane
                how |= {"lane": lane, "options": {"attempts": attempt(message)}}
                retry_until_available(message, "retry", self._transport.divert, message, **how)
            message.open = False  # type: ignore[attr-defined]
        except Exception as refusal:  # noqa: BLE001  any hook may refuse; the message must end somewhere
            log.error("retry refused", job_id=message.message_id, actor=message.actor_name, refusal=repr(refusal))
            why = f"retry refused ({repr(refusal)[:REFUSAL_CHARACTERS]})"
            decide(message, Outcome("dead", "exhausted", exception=exception, refusal=why))
            if outcome.kind == "deferred" and exception is not None:
                self._call_back(broker, message, message.outcome, exception)

    def _judge(self, broker: Broker, message: MessageProxy, exception: BaseException | None) -> Outcome:
        if exception is None:
            return SUCCEEDED
        # Any failure of a cancelled job: it is not retried.
        if isinstance(exception, (errors.Cancelled, errors.CancelInterrupt)) or getattr(
            message, "cancel_requested", False
        ):
            return Outcome("cancelled", exception=exception)
        if isinstance(exception, errors.LockTaken):
            return Outcome("deferred", "lock", delay_ms=exception.delay, exception=exception)
        actor = broker.actors.get(message.actor_name)
        if isinstance(exception, (Poison, SuspectedPoison)):
            reason = "poison" if isinstance(exception, Poison) else "suspected_poison"
            return Outcome("dead", reason, exception=exception)
        if actor is None or isinstance(exception, (errors.PermanentFailure, errors.ArgumentMismatch)):
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
        bounds, speed = bounds_of(message.options, actor, policy), self._yard.retry_speed
        delay_ms = delay_of(retry, policy, exception, actor.options.get("backoff"), bounds=bounds, speed=speed)
        return Outcome("retried", delay_ms=delay_ms, exception=exception)

    def _call_back(self, broker: Broker, message: MessageProxy, outcome: Outcome, exception: BaseException) -> Outcome:
        """Send what follows a failure; return its outcome, with why that was refused."""
        sends = [partial(report_failure, broker, message, exception)]
        if outcome.kind == "dead" and outcome.reason in ("exhausted", "time_limit"):
            sends.append(partial(self._report_exhausted, broker, message, exception))
        for send in sends:
            try:
                send()
            except Exception as refusal:  # noqa: BLE001  without its move the message would be lost
                why = text_of(refusal)
                log.error("callback refused", job_id=message.message_id, actor=message.actor_name, refusal=why)
                outcome = replace(outcome, refusal=why[:REFUSAL_CHARACTERS])
        return outcome

    def _report_exhausted(self, broker: Broker, message: MessageProxy, exception: BaseException) -> None:
        """Send the message of ``on_retry_exhausted``, if there is one."""
        if not (target := target_of(broker, message, "on_retry_exhausted")):
            return
        actor = broker.actors[message.actor_name]
        most = max_retries_of(message, actor, self._yard.queue_of(message.queue_name).retry)
        retries = attempt(message) - 1
        data = fields_of(message)
        formatted = traceback_of(exception, 30)  # frames, as Dramatiq does
        data["options"] = {**data["options"], "retries": retries + 1, "traceback": formatted}
        info = {"retries": retries, "max_retries": None if most == math.inf else int(most)}
        call_back(broker, message, target, "on_retry_exhausted", data, info)
