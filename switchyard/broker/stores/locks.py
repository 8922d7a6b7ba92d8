"""A named lock with a lease, for work that one process at a time may do."""

from __future__ import annotations

import secrets

from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script

ACQUIRE, RELEASE = (script(name, folder="") for name in ("lock_take", "lock_release"))


class Lock:
    """A lock that expires ``lease_ms`` after its holder last acquired it."""

    def __init__(self, calls: RedisCalls, keys: Keys, name: str, *, lease_ms: int) -> None:
        self._key = keys.lock(name)
        self._lease_ms = lease_ms
        self._token = secrets.token_hex(16)
        self._calls = calls

    def acquire(self) -> bool:
        """Acquire the lock, or renew it; ``False`` when another process holds it."""
        return bool(self._calls.call(ACQUIRE, [self._key], [self._token, self._lease_ms]))

    def release(self) -> bool:
        """Release the lock; ``False`` when it had expired."""
        return bool(self._calls.call(RELEASE, [self._key], [self._token]))
