"""Counters of ``dramatiq.rate_limits``: each change is one step on the server, and happens once if it is repeated."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from dramatiq.rate_limits import RateLimiterBackend

from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script

CHANGE: Final = script("limit_change", folder="")
LARGEST: Final = 2**53
# A call is repeated for 2 s.
ANSWER_TTL_MS: Final = 10_000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 0.1


class LimitCounts(RateLimiterBackend):
    """Backend of Dramatiq's rate limiters and barriers, on the broker's server.

    ``place`` is called at each use, so that a limiter may be made before the broker.
    """

    def __init__(self, place: Callable[[], tuple[RedisCalls, Keys]]) -> None:
        self._place = place

    def add(self, key: str, value: int, ttl: int) -> bool:
        """Set a counter that does not exist; ``False`` when it does."""
        return self._change(key, value, ttl, only="new")

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        """Increment a counter; ``False`` when it would exceed its maximum."""
        return self._change(key, amount, ttl, maximum=maximum)

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        """Decrement a counter; ``False`` when it would go below its minimum."""
        return self._change(key, -amount, ttl, minimum=minimum)

    def incr_and_sum(self, key: str, keys: Callable[[], Sequence[str]], amount: int, maximum: int, ttl: int) -> bool:
        """Increment a counter; ``False`` when it, or the sum of the counters, would exceed the maximum."""
        return self._change(key, amount, ttl, maximum=maximum, summed=keys())

    def wait(self, key: str, timeout: int | None) -> bool:
        """Wait for an event, up to ``timeout`` ms; ``False`` when it did not come.

        Polls, every 100 ms at last: a blocked connection would be one more for each waiting task.
        """
        calls, keys = self._place()
        until_s = None if timeout is None else time.monotonic() + timeout / 1000
        pause_s = FIRST_PAUSE_S
        while not calls.command("EXISTS", keys.limit(key)):
            if until_s is not None and time.monotonic() >= until_s:
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return True

    def wait_notify(self, key: str, ttl: int) -> None:
        """Let those go on that wait for an event, and those that come within ``ttl`` ms."""
        calls, keys = self._place()
        calls.command("SET", keys.limit(key), 1, "PX", ttl)

    def _change(
        self,
        key: str,
        amount: int,
        ttl_ms: int,
        *,
        minimum: int = -LARGEST,
        maximum: int = LARGEST,
        summed: Sequence[str] = (),
        only: str = "",
    ) -> bool:
        calls, keys = self._place()
        names = [keys.limit(key), keys.limit_answer(key, secrets.token_hex(8)), *map(keys.limit, summed)]
        arguments: list[Any] = [amount, minimum, maximum, ttl_ms, ANSWER_TTL_MS, only]
        return bool(calls.call(CHANGE, names, arguments))
