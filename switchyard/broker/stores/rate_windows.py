"""Exact sliding windows over all workers: at most N starts in any window, slots reserved in order."""

from __future__ import annotations

import logging

from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script

RESERVE = script("window_reserve", folder="")

logger = logging.getLogger(__name__)


class RateWindows:
    """Reserve starts under a limit. The server's clock decides."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._keys = keys
        self._calls = calls

    def reserve(self, name: str, member: str, *, limit: int, window_ms: int) -> int:
        """Start now or reserve the next start; return the milliseconds until it, 0 for now.

        The same member asking again keeps its slot. Starts that a clock which was ahead has written are dropped, and
        logged: they would hold up everything else for as long as it was ahead.
        """
        wait_ms, dropped = self._calls.call(RESERVE, [self._keys.window(name)], [member, limit, window_ms])
        if dropped:
            logger.warning(
                "rate limit %s: %d starts lie too far in the future and are dropped; the server's clock was ahead",
                name,
                dropped,
            )
        return int(wait_ms)
