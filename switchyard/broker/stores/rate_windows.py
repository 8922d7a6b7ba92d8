"""Exact sliding windows over all workers: at most N starts in any window, slots reserved in order."""

from __future__ import annotations

from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script

RESERVE = script("window_reserve", folder="")


class RateWindows:
    """Reserve starts under a limit. The server's clock decides."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._keys = keys
        self._calls = calls

    def reserve(self, name: str, member: str, *, limit: int, window_ms: int) -> int:
        """Start now or reserve the next start; return the milliseconds until it, 0 for now.

        The same member asking again keeps its slot.
        """
        return int(self._calls.call(RESERVE, [self._keys.window(name)], [member, limit, window_ms]))
