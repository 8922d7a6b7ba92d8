"""Which of several schedulers sends the ticks: whoever holds a lease."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from broker.keys.keys import Keys
from broker.stores.locks import Lock

LOCK = "scheduler"
LEASE_S = 15.0
RENEW_S = 5.0


def anyone_leads(client: redis.Redis, keys: Keys) -> bool:
    """Return whether a scheduler holds the lease, on whatever machine."""
    return bool(client.exists(keys.lock(LOCK)))


class Leadership:
    """A lease that is renewed while its holder lives, and lapses when it does not.

    Args:
        lease_s: Another scheduler takes over this long after the last renewal.
        renew_s: Renewed this often; less than the lease.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        *,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < renew_s < lease_s:
            raise ValueError(f"renew_s must be between 0 and lease_s ({lease_s}), got {renew_s}")
        self._lock = Lock(client, keys, LOCK, lease_ms=int(lease_s * 1000))
        self._lease_s, self._renew_s, self._clock = lease_s, renew_s, clock
        self._renewed_s: float | None = None

    def held(self) -> bool:
        """Return whether the lease is surely ours: a process that was stopped for longer than it knows it is not."""
        return self._younger_than(self._lease_s)

    def tend(self) -> bool:
        """Take the lease if it is free, renew ours when it is time, and return whether it is held.

        Raises:
            redis.RedisError: the server did not answer; the lease may run out.
        """
        if self._younger_than(self._renew_s):
            return True
        # Counted from before the request, so that our clock ends it before the server's does.
        asked_s = self._clock()
        self._renewed_s = asked_s if self._lock.take() else None
        return self.held()

    def release(self) -> None:
        """Let another take over at once. Nothing happens when the lease is not ours any more.

        Raises:
            redis.RedisError: the server did not answer; the lease runs out by itself.
        """
        if self._renewed_s is not None:
            self._renewed_s = None
            self._lock.release()

    def _younger_than(self, age_s: float) -> bool:
        renewed_s = self._renewed_s  # other threads ask while it changes
        return renewed_s is not None and self._clock() < renewed_s + age_s
