"""Rate limiters and barriers, on Dramatiq's own backend."""

import os
import uuid
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.rate_limits import (
    Barrier,
    BucketRateLimiter,
    ConcurrentRateLimiter,
    RateLimiter,
    RateLimitExceeded,
    WindowRateLimiter,
)
from dramatiq.rate_limits.backends import RedisBackend

from . import journal
from .journal import case

BACKEND = RedisBackend(url=os.environ["REDIS_URL"])
RUN = uuid.uuid4().hex[:8]
LIMITERS: dict[str, RateLimiter] = {
    "concurrent": ConcurrentRateLimiter(BACKEND, f"{RUN}-concurrent", limit=2),
    "bucket": BucketRateLimiter(BACKEND, f"{RUN}-bucket", limit=2, bucket=86_400_000),
    "window": WindowRateLimiter(BACKEND, f"{RUN}-window", limit=2, window=600),
}
MEETING = Barrier(BACKEND, f"{RUN}-meeting", ttl=60_000)


@dramatiq.actor(max_retries=0)
def acquires(which: str) -> None:
    """Acquire three times, one in the other."""
    limiter, found = LIMITERS[which], []
    with limiter.acquire(raise_on_failure=False) as first, limiter.acquire(raise_on_failure=False) as second:
        found += [bool(first), bool(second)]
        try:
            with limiter.acquire():
                found.append(True)
        except RateLimitExceeded as error:
            found.append(type(error).__name__)
    with limiter.acquire(raise_on_failure=False) as after:
        found.append(bool(after))
    journal.note("limits", (which, found))


@dramatiq.actor(max_retries=0)
def meets() -> None:
    journal.note("meeting", MEETING.wait(timeout=30_000))


@case
def rate_limits() -> Callable[[], Any]:
    """Each kind of limiter, and a barrier of three."""
    MEETING.create(3)
    for which in LIMITERS:
        acquires.send(which)
    for _ in range(3):
        meets.send()
    return lambda: (sorted(journal.of("limits")), journal.of("meeting"))
