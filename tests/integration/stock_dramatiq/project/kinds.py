"""Generic actors and async actors."""

import asyncio
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.middleware import CurrentMessage

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
