"""Exact sliding windows over all workers: at most N starts in any window, slots reserved in order."""

from __future__ import annotations

import redis

from broker.errors import BrokerUnavailable
from broker.keys.keys import Keys
from broker.redis.scripts import load


class RateWindows:
    """Reserve starts under a limit. The server's clock decides."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._keys = keys
        self._reserve = load(client, "window_reserve")

    def reserve(self, name: str, member: str, *, limit: int, window_ms: int) -> int:
        """Start now or reserve the next start.

        Args:
            name: The window's name, such as an actor's.
            member: Who starts; the same member asking again keeps its slot.

        Returns:
            Milliseconds until the reserved start; 0 means start now.

        Raises:
            BrokerUnavailable: the server did not answer.
        """
        try:
            return int(self._reserve(keys=[self._keys.window(name)], args=[member, limit, window_ms]))
        except redis.RedisError as error:
            raise BrokerUnavailable(f"window of {name}", str(error)) from error
