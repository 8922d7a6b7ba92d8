"""A named lock with a lease, for work that one process at a time may do."""

from __future__ import annotations

import secrets

import redis

from broker.keys.keys import Keys
from broker.redis.scripts import load


class Lock:
    """A lock that lapses by itself when its holder is gone.

    Args:
        lease_ms: Held this long after each :meth:`take`.
    """

    def __init__(self, client: redis.Redis, keys: Keys, name: str, *, lease_ms: int) -> None:
        self._key = keys.lock(name)
        self._lease_ms = lease_ms
        self._token = secrets.token_hex(16)
        self._take = load(client, "lock_take")
        self._release = load(client, "lock_release")

    def take(self) -> bool:
        """Take the lock, or renew it; ``False`` when another holds it."""
        return bool(self._take(keys=[self._key], args=[self._token, self._lease_ms]))

    def release(self) -> bool:
        """Give the lock back; ``False`` when it had lapsed."""
        return bool(self._release(keys=[self._key], args=[self._token]))
