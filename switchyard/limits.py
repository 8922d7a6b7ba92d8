"""Limits for use in a task: named locks, and the backend of ``dramatiq.rate_limits``, on the broker's server."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from dramatiq.middleware import CurrentMessage

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.limit_counts import LimitCounts, TaskLock
from switchyard.broker.topology import is_duration
from switchyard.middleware.errors import LockTaken

LONGEST_KEY: Final = 200
LONGEST_PAUSE_S: Final = 0.5


def rate_limiter_backend() -> LimitCounts:
    """Return a backend for Dramatiq's rate limiters and barriers; nothing is read or connected before they are used."""
    return LimitCounts(_place)


def _place() -> tuple[RedisCalls, Keys]:
    records = facilities().records
    return records.calls, records.keys


@contextmanager
def lock(key: str, *, wait_s: float = 0.0, expiry_s: float = 15.0) -> Iterator[TaskLock]:
    """Hold a named lock in a ``with`` block; of all tasks and processes one at a time does.

    In a task the worker renews it while the block runs, whatever its length; ``expiry_s`` after the worker was killed
    another one gets it. Outside of a worker nothing renews it: there the block must end within ``expiry_s``. A holder
    that asks for its lock once more is refused.

    Args:
        key: 1 to 200 printable characters without braces.
        wait_s: How long to wait for it; the task's time limit goes on meanwhile.
        expiry_s: How long it outlives its holder, from 1 s.

    Returns:
        The lock. Its ``number`` is greater than that of each holder before: a store that refuses a lower number than
        the last one it has seen is safe from a holder that was suspended for longer than the expiry. ``lost`` says
        whether a renewal has found that the lock has gone.

    Raises:
        LockTaken: another holder has it. A task that raises it runs again some seconds later, and spends no retry.
        BrokerUnavailable: the server does not answer.
        ValueError: the key or a time cannot be used.
    """
    if not (isinstance(key, str) and 0 < len(key) <= LONGEST_KEY and key.isprintable()) or "{" in key or "}" in key:
        raise ValueError(f"lock: key is {key!r:.120}; write 1 to {LONGEST_KEY} printable characters without braces")
    if type(wait_s) not in (int, float) or not wait_s >= 0 or not is_duration(expiry_s) or expiry_s < 1:
        raise ValueError(f"lock {key}: wait_s is {wait_s!r}, expiry_s {expiry_s!r}; write seconds, at least 0 and 1")
    barrier = facilities().barrier
    held = TaskLock(*_place(), key, lease_ms=int(expiry_s * 1_000))
    until_s, pause_s = time.monotonic() + wait_s, 0.02
    while not held.acquire():
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise LockTaken(key)
        time.sleep(min(left_s, pause_s * random.uniform(0.5, 1)))  # noqa: S311  no secret
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    try:
        if CurrentMessage.get_current_message() is not None:
            barrier.locks[id(held)] = held
            barrier.wake()
        yield held
    finally:
        barrier.locks.pop(id(held), None)
        with suppress(BrokerUnavailable):  # then it expires
            held.release()
