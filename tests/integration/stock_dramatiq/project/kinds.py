"""Generic actors, async actors, and rate limiters and barriers on Dramatiq's own backend."""

import asyncio
import os
import uuid
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq import rate_limits
from dramatiq.middleware import CurrentMessage
from dramatiq.rate_limits.backends import RedisBackend

from . import journal
from .journal import case


class Report(dramatiq.GenericActor):
    """A base of actors, not an actor itself."""

    class Meta:
        abstract = True
        queue_name = "mail"
        max_retries = 2
        min_backoff = 10
        max_backoff = 20

    def title(self) -> str:
        raise NotImplementedError

    def perform(self, year: int) -> None:
        journal.note("generic", (self.title(), year))


class Sales(Report):
    """An actor with its base's options."""

    def title(self) -> str:
        return "Sales"


class Costs(Report):
    """An actor with options of its own, instead of its base's, which fails once."""

    class Meta:
        actor_name = "costs"
        max_retries = 1
        min_backoff = 10
        max_backoff = 20

    def title(self) -> str:
        if journal.note("generic_retry") == 1:
            raise RuntimeError("not yet")
        return "Costs"


@dramatiq.actor(max_retries=2, min_backoff=10, max_backoff=20)
async def fetch(url: str) -> str:
    """Run on the event loop, and fail once."""
    await asyncio.sleep(0.01)
    message = CurrentMessage.get_current_message()
    if journal.note("async", url) == 1:
        raise RuntimeError("not yet")
    journal.note("async_message", message is not None and message.args)
    return url


@dramatiq.actor(time_limit=300, max_retries=0)
async def hangs() -> None:
    try:
        await asyncio.sleep(20)
    except asyncio.CancelledError:
        journal.note("async_limit", "cancelled")
        raise


@case
def generic_actors() -> Callable[[], Any]:
    Sales.send(2026)
    Costs.send_with_options(args=(2026,), delay=20)
    names = (Sales.actor_name, Sales.queue_name, Sales.options["max_retries"], Costs.actor_name, Costs.queue_name)
    return lambda: (names, sorted(journal.of("generic")), journal.count("generic_retry"))


@case
def async_actors() -> Callable[[], Any]:
    fetch.send("https://example.org")
    hangs.send()
    return lambda: (journal.count("async"), journal.of("async_message"), journal.of("async_limit"))


BACKEND = RedisBackend(url=os.environ["REDIS_URL"])
RUN = uuid.uuid4().hex[:8]
LIMITERS: dict[str, rate_limits.RateLimiter] = {
    "concurrent": rate_limits.ConcurrentRateLimiter(BACKEND, f"{RUN}-concurrent", limit=2),
    "bucket": rate_limits.BucketRateLimiter(BACKEND, f"{RUN}-bucket", limit=2, bucket=86_400_000),
    "window": rate_limits.WindowRateLimiter(BACKEND, f"{RUN}-window", limit=2, window=600),
}
MEETING = rate_limits.Barrier(BACKEND, f"{RUN}-meeting", ttl=60_000)


@dramatiq.actor(max_retries=0)
def acquires(which: str) -> None:
    """Acquire three times, one in the other."""
    limiter, found = LIMITERS[which], []
    with limiter.acquire(raise_on_failure=False) as first, limiter.acquire(raise_on_failure=False) as second:
        found += [bool(first), bool(second)]
        try:
            with limiter.acquire():
                found.append(True)
        except rate_limits.RateLimitExceeded as error:
            found.append(type(error).__name__)
    with limiter.acquire(raise_on_failure=False) as after:
        found.append(bool(after))
    journal.note("limits", (which, found))


@dramatiq.actor(max_retries=0)
def meets() -> None:
    journal.note("meeting", MEETING.wait(timeout=30_000))


@case
def limits() -> Callable[[], Any]:
    """Each kind of limiter, and a barrier of three."""
    MEETING.create(3)
    for which in LIMITERS:
        acquires.send(which)
    for _ in range(3):
        meets.send()
    return lambda: journal.count("limits") == len(LIMITERS) and (sorted(journal.of("limits")), journal.of("meeting"))
