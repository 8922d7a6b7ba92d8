"""Leader election: of several schedulers, and of several history writers, the holder of a lease works."""

from __future__ import annotations

import time
from collections.abc import Callable

from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.locks import Lock

SCHEDULER, HISTORY_WRITER = "scheduler", "history"
LEASE_S = 15.0
RENEW_S = 5.0


def anyone_leads(calls: RedisCalls, keys: Keys, name: str = SCHEDULER) -> bool:
    """Return whether a process on any machine holds the lease."""
    return bool(calls.command("EXISTS", keys.lock(name)))


class Leadership:
    """A lease that its holder renews every ``renew_s``, and that expires ``lease_s`` after its last renewal."""

    def __init__(
        self,
        calls: RedisCalls,
        keys: Keys,
        name: str = SCHEDULER,
        *,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < renew_s < lease_s:
            raise ValueError(f"renew_s must be between 0 and lease_s ({lease_s}), got {renew_s}")
        self._lock = Lock(calls, keys, name, lease_ms=int(lease_s * 1000))
        self._lease_s, self._renew_s, self._clock = lease_s, renew_s, clock
        self._renewed_s: float | None = None

    def held(self) -> bool:
        """Return whether this process certainly holds the lease; false after a suspension longer than the lease."""
        return self._younger_than(self._lease_s)

    def acquire_or_renew(self) -> bool:
        """Acquire a free lease or renew the held one when it is due; return whether it is held.

        After a ``BrokerError`` it may expire.
        """
        if self._younger_than(self._renew_s):
            return True
        # Measured before the request, so that the lease expires here before it expires on the server.
        requested_s = self._clock()
        self._renewed_s = requested_s if self._lock.acquire() else None
        return self.held()

    def release(self) -> None:
        """Release the lease so that another process takes over at once. Does nothing if this process lost it.

        After a ``BrokerError`` it expires by itself.
        """
        if self._renewed_s is not None:
            self._renewed_s = None
            self._lock.release()

    def _younger_than(self, age_s: float) -> bool:
        renewed_s = self._renewed_s  # other threads write it
        return renewed_s is not None and self._clock() < renewed_s + age_s
