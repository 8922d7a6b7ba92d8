"""The policy of a queue's retries: how many, and how long each waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from switchyard.broker.validation import LONGEST_DELAY_MS, is_delay, is_whole, require, takes_arguments

# Retries that a span counts: an actor may declare any number of them.
MOST_COUNTED = 1_000

Backoff = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Number and delays of the retries of a failed message. ``InvalidDeclaration`` for an option that cannot be used.

    A delay is drawn with equal jitter: half of it, plus uniform up to the other half. The default lasts for hours,
    because an outage of what an actor calls does (docs/decisions/0014-retries-outlast-an-outage.md).

    Args:
        max_retries: Retries after the first attempt; 0 means none. Left out with ``delays_ms``.
        base_ms: Longest delay before the first retry; it doubles with each. Left out with ``delays_ms``.
        cap_ms: Longest delay before any retry, ``base_ms`` to one year. Left out with ``delays_ms``.
        delays_ms: Longest delay before each retry, one for each. The last one repeats for an actor that retries more
            often. Empty for ``base_ms`` and ``cap_ms``.
        backoff: Own function from the number of the retry (1 …) to its delay in ms, used as it is: neither jitter nor
            cap is added.
    """

    max_retries: int = 12
    base_ms: int = 5_000
    cap_ms: int = 3_600_000
    delays_ms: tuple[int, ...] = ()
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        subject = "retry policy"
        retries, base_ms, cap_ms, backoff = self.max_retries, self.base_ms, self.cap_ms, self.backoff
        require(is_whole(retries), subject, "max_retries", retries, "write a number of retries, 0 for none")
        require(is_whole(base_ms), subject, "base_ms", base_ms, "write milliseconds, 0 or more")
        limits = f"write milliseconds, from base_ms ({base_ms}) to {LONGEST_DELAY_MS}"
        require(is_whole(cap_ms, least=base_ms, most=LONGEST_DELAY_MS), subject, "cap_ms", cap_ms, limits)
        usable = backoff is None or takes_arguments(backoff, 1)
        require(usable, subject, "backoff", backoff, "write a function of one argument, the number of the retry")
        remedy = "write a tuple of milliseconds, one for each retry, such as (5_000, 300_000)"
        require(_are_delays(self.delays_ms), subject, "delays_ms", self.delays_ms, remedy)
        if self.delays_ms:
            remedy = f"leave it out: delays_ms already says when each of its {len(self.delays_ms)} retries comes"
            for option in (option for option in fields(self) if option.name != "delays_ms"):
                value = getattr(self, option.name)
                require(value == option.default, subject, option.name, value, remedy)

    @property
    def retries(self) -> int:
        """Retries of a message whose actor names no number of its own."""
        return len(self.delays_ms) or self.max_retries

    def longest_ms(self, retry: int) -> int:
        """Return the longest delay before a retry, counted from 1; the shortest is half of it."""
        if self.delays_ms:
            return self.delays_ms[min(retry, len(self.delays_ms)) - 1]
        return min(self.cap_ms, self.base_ms << min(retry - 1, 30))

    def span_ms(self, *, retries: int | None = None, backoff: Backoff | None = None) -> tuple[int, int]:
        """Return the least and the most time from the first failure to the last retry, without the attempts themselves.

        ``retries`` and ``backoff`` are an actor's own. At most 1,000 retries count; a function is called for each, and
        its answer has no jitter.
        """
        least = most = 0
        for retry in range(1, min(self.retries if retries is None else retries, MOST_COUNTED) + 1):
            own_ms = own_delay(backoff, retry)
            own_ms = own_delay(self.backoff, retry) if own_ms is None else own_ms
            least += self.longest_ms(retry) // 2 if own_ms is None else own_ms
            most += self.longest_ms(retry) if own_ms is None else own_ms
        return least, most


def own_delay(backoff: Backoff | None, retry: int) -> int | None:
    """Return the delay of a project's own function; ``None``, for the policy's, without one and for an unusable answer.

    A retry is not lost for a function.
    """
    if backoff is None:
        return None
    try:
        delay_ms = backoff(retry)
    except Exception:  # noqa: BLE001  the project's own function; the middleware logs it
        return None
    return int(delay_ms) if is_delay(delay_ms) else None


def _are_delays(delays_ms: object) -> bool:
    if not isinstance(delays_ms, tuple):
        return False
    return all(is_whole(delay_ms, most=LONGEST_DELAY_MS) for delay_ms in delays_ms)
