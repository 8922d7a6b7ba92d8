"""Signals that something moved in the queues, for open lists: one reading of counters every 2 s for a whole process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase

from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.keys import ALL_LANES
from switchyard.jobs import live
from switchyard.jobs.live import free_database
from switchyard.jobs.queries import families

EVERY_S: Final = 2.0
# The browser connects again, with the rights that its user has then.
LONGEST_S: Final = 600.0
_CHANGE: Final = b"event: change\ndata: {}\n\n"
logger = logging.getLogger(__name__)


def read_counters() -> tuple[Any, ...]:
    """Return counters one of which changes when a job is sent, starts, is put off, ends, or comes into the history.

    One round trip.
    """
    found = families()
    reads: list[tuple[str, ...]] = [("HGET", facilities().records.keys.history_counts(), "written")]
    for keys in (family.keys for family in found):
        reads += [("GET", keys.token), ("HLEN", keys.bodies), ("HLEN", keys.jobs)]
        reads += [("ZCARD", keys.due(lane)) for lane in ALL_LANES]
    # A server that does not answer changes nothing.
    answers = found[0].calls.pipeline(reads, raise_errors=False) if found else []
    return tuple(None if isinstance(answer, BrokerError) else answer for answer in answers)


async def list_events(request: HttpRequest, *, caller: str) -> HttpResponseBase:
    """Signal changes as server-sent events ``change`` without content, at most one every 2 s."""
    await free_database()
    return live.response(follow(heartbeat_s=live.HEARTBEAT_S), place=live.StreamPlace(caller))


async def follow(*, heartbeat_s: float) -> AsyncGenerator[bytes]:
    """Yield a change at once and after each one, a comment after every ``heartbeat_s`` without; ends after 10 min."""
    yield f"retry: {live.RECONNECT_MS}\n\n".encode()
    began = time.monotonic()
    with _reader().watched() as news:
        yield _CHANGE
        while time.monotonic() - began < LONGEST_S:
            with suppress(TimeoutError):
                async with asyncio.timeout(heartbeat_s):
                    await news.wait()
            yield _CHANGE if news.is_set() else b": heartbeat\n\n"
            news.clear()


class _CounterReader:
    """The reader of counters in one event loop. It runs while somebody watches."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def watched(self) -> Iterator[asyncio.Event]:
        """Set an event after each change."""
        news = asyncio.Event()
        self._watchers.add(news)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="counters of the queues")
        try:
            yield news
        finally:
            self._watchers.discard(news)
            if not self._watchers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        last: tuple[Any, ...] | None = None
        while True:
            try:
                counters = await sync_to_async(read_counters, thread_sensitive=False)()
            except BrokerError as error:
                logger.warning("counters of the queues are not read: %s", type(error).__name__)
                counters = None
            if counters != last:
                for news in self._watchers:
                    news.set()
            last = counters
            await asyncio.sleep(EVERY_S)


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, _CounterReader] = WeakKeyDictionary()


def _reader() -> _CounterReader:
    return _readers.setdefault(asyncio.get_running_loop(), _CounterReader())
