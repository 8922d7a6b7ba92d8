"""A named lock with a lease, for work that one process at a time may do."""

from __future__ import annotations

import secrets

from broker.keys.keys import Keys
from broker.redis.calls import RedisCalls
from broker.redis.scripts import script

TAKE, RELEASE = (script(name, folder="") for name in ("lock_take", "lock_release"))


class Lock:
    """A lock that lapses by itself when its holder is gone.

    Args:
        lease_ms: Held this long after each :meth:`take`.
    """

    def __init__(self, calls: RedisCalls, keys: Keys, name: str, *, lease_ms: int) -> None:
        self._key = keys.lock(name)
        self._lease_ms = lease_ms
        self._token = secrets.token_hex(16)
        self._calls = calls

    def take(self) -> bool:
        """Take the lock, or renew it; ``False`` when another holds it."""
        return bool(self._calls.call(TAKE, [self._key], [self._token, self._lease_ms]))

    def release(self) -> bool:
        """Give the lock back; ``False`` when it had lapsed."""
        return bool(self._calls.call(RELEASE, [self._key], [self._token]))
