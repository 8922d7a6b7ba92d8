"""Options of retries: how often a failed message is retried, after which delay, and after which failures."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any, Final

from dramatiq.actor import Actor
from dramatiq.common import compute_backoff
from dramatiq.errors import Retry

from switchyard.broker.retry_policy import MOST_COUNTED
from switchyard.broker.topology import RetryPolicy
from switchyard.broker.validation import LONGEST_DELAY_MS, is_delay, is_whole, takes_arguments
from switchyard.loggers import get_logger
from switchyard.middleware.errors import RetryLater
from switchyard.middleware.option_rules import OptionRule, actor_name, rule_of_both

log = get_logger(__name__)

# Longest delay between bounds of an actor or a message, as in Dramatiq.
LONGEST_BOUND_MS: Final = 7 * 24 * 3_600_000
# Options of an actor that change how long its retries last.
RETRY_DELAYS: Final = frozenset({"max_retries", "backoff", "min_backoff", "max_backoff"})


def retry_rules() -> tuple[OptionRule, ...]:
    return (
        rule_of_both("max_retries", _of_max_retries, takes_none=False),
        rule_of_both("min_backoff", _of_bound),
        rule_of_both("max_backoff", _of_bound),
        rule_of_both("on_retry_exhausted", actor_name),
        OptionRule("backoff", lambda value, actor: _of_backoff(value)),
        OptionRule("retry_when", lambda value, actor: _of_retry_when(value)),
        OptionRule("permanent", lambda value, actor: _of_permanent(value)),
        OptionRule("throws", lambda value, actor: _of_throws(value)),
    )


def max_retries_of(message: Any, actor: Actor[..., Any], policy: RetryPolicy) -> float:
    """Return how often a message is retried: its own ``max_retries``, else its actor's, else its queue's.

    Infinity for ``None``, which is without end.
    """
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
    """Return whether a failed message is retried: what ``retry_when`` of its actor says, else its number of retries.

    ``retry`` counts from 1; the function gets the number of retries that there were. One that fails is logged, and the
    number decides.
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

    Equal jitter: half of the policy's delay, plus uniform up to the other half. Full jitter, uniform from zero, spreads
    a little more, but draws near zero spend the retries before an outage ends (M. Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015). The actor's own ``backoff`` takes precedence over the policy's, and
    ``bounds`` over both: between them the delay is Dramatiq's, the least one doubles with each retry, with up to as
    much again; above the most, half of the most to all of it.

    A delay that another server asked for (``RetryLater``) is the least one. Dramatiq's ``Retry`` names the actor's own
    delay, which takes precedence. Up to the first retry's delay is added to both, so that messages that were refused
    together do not come back together. An unusable delay or function is ignored. ``speed`` divides delays that are not
    asked for.
    """
    asked_ms = exception.delay if isinstance(exception, Retry) else None
    if asked_ms is None or not is_delay(asked_ms):
        return _scheduled(retry, policy, backoff, bounds) // speed
    spread_ms = int(asked_ms) + random.randint(0, policy.longest_ms(1) // speed)  # noqa: S311  no secret
    if not isinstance(exception, RetryLater):
        return spread_ms
    return max(spread_ms, _scheduled(retry, policy, backoff, bounds) // speed)


def bounds_of(message: Any, actor: Actor[..., Any], policy: RetryPolicy) -> tuple[int, int] | None:
    """Return the bounds of a message's delays: its own ``min_backoff`` and ``max_backoff``, else its actor's.

    One of the two that is left out is its queue's. ``None`` without either, or with a ``backoff`` of the actor and none
    of the message.
    """
    own = _bounds(message.options)
    declared = _bounds(actor.options)
    if own == NEITHER and ("backoff" in actor.options or declared == NEITHER):
        return None
    least, most = (mine if mine is not None else its for mine, its in zip(own, declared, strict=True))
    least = policy.longest_ms(1) if least is None else least
    most = max(policy.longest_ms(MOST_COUNTED), least) if most is None else most
    return least, min(most, LONGEST_BOUND_MS)


def span_of(actor: Actor[..., Any], policy: RetryPolicy) -> tuple[int, int]:
    """Return the least and the most time in ms from an actor's first failure to its last retry.

    Of retries without end the first 1,000 count.
    """
    own = actor.options.get("max_retries", policy.retries)
    retries = MOST_COUNTED if own is None else own
    bounds = bounds_of(_NoMessage, actor, policy)
    if bounds is None:
        return policy.span_ms(retries=retries, backoff=actor.options.get("backoff"))
    spans = list(_spans(bounds, min(retries, MOST_COUNTED)))
    return sum(least for least, _ in spans), sum(most for _, most in spans)


NEITHER: Final = (None, None)


class _NoMessage:
    options: Final[dict[str, Any]] = {}


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


def _of_max_retries(value: Any) -> str:
    usable = value is None or is_whole(value)
    return "" if usable else "write a number of retries, 0 for none, None for retries without end"


def _of_bound(value: Any) -> str:
    return "" if is_delay(value) else f"write milliseconds, from 0 to {LONGEST_DELAY_MS}"


def _of_backoff(value: Any) -> str:
    return "" if takes_arguments(value, 1) else "write a function of one argument, the number of the retry"


def _of_retry_when(value: Any) -> str:
    if is_exception_class(value):  # calling it makes an exception, which is true
        return f"write retry_when=lambda retries, exception: isinstance(exception, {value.__name__})"
    remedy = "write a function of two arguments, the number of retries so far and the exception"
    return "" if takes_arguments(value, 2) else remedy


def _of_permanent(value: Any) -> str:
    if is_exception_class(value):
        return f"write permanent=({value.__name__},)"
    return "" if _are_exceptions(value) else "write a tuple of exception classes, such as permanent=(ValueError,)"


def _of_throws(value: Any) -> str:
    usable = is_exception_class(value) or _are_exceptions(value)
    return "" if usable else "write an exception class, or a tuple of them, such as throws=(ValueError,)"


def is_exception_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _are_exceptions(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(is_exception_class(each) for each in value)
