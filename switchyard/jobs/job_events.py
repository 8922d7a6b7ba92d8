"""Events of jobs for pages and streams of this process: one connection to the broker reads those of all watched jobs.

A watcher reads at its own pace: what it does not fetch is kept up to a limit and read again from the job's stream
afterwards, so a slow one delays nobody and takes a bounded amount of memory. When the broker is away, the reader
connects again by itself and goes on after the last event that each watcher has.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import redis.asyncio
from asgiref.sync import sync_to_async
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from switchyard.api.responses import iso_time
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.redis.server_connection import AsyncServerConnection
from switchyard.conf import switchyard_settings

# Events of one job in one answer of the server.
BATCH = 32
BLOCK_S = 5.0
# Seconds after the end of a blocking read until the server counts as unreachable.
GRACE_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
# Kept for a watcher that does not fetch.
MOST_BYTES = 128 * 1024
# A new watcher is asked for in the running read, again after this time: the first request may come too early.
ASK_AGAIN_S, ASK_TIMES = 0.05, 20
TIMES = ("at", "next_attempt_at")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of a job.

    Args:
        id: Place in the job's stream, for example ``1700000000000-0``.
        name: ``state``, ``progress`` or ``end``.
        data: Content, with times in ISO 8601.
    """

    id: str
    name: str
    data: dict[str, Any]
    size_bytes: int


class Watcher:
    """The events of one job after a place; see :func:`watch`."""

    def __init__(self, reader: _Reader, key: str, after: str) -> None:
        self.key = key
        self.after = after
        self.asked = asyncio.Event()
        self.lags = False
        self.reader = reader
        self._waiting: deque[JobEvent] = deque()
        self._waiting_bytes = 0
        self._news = asyncio.Event()

    async def next(self, timeout_s: float) -> list[JobEvent]:
        """Return the events since the last call, oldest first; waits for one, and returns none after ``timeout_s``."""
        if not self._waiting and self.lags:
            self.lags = False
            await self.reader.ask_for(self)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        self._news.clear()
        events = list(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        return events

    def offer(self, event: JobEvent) -> None:
        """Keep an event until it is fetched, unless too much waits."""
        if self.lags or _number(event.id) <= _number(self.after):
            return
        if self._waiting_bytes > MOST_BYTES:
            self.lags = True
            return
        self._waiting.append(event)
        self._waiting_bytes += event.size_bytes
        self.after = event.id
        self._news.set()


@asynccontextmanager
async def watch(job_id: str, queue: str, *, after: str) -> AsyncGenerator[Watcher]:
    """Watch a job's events after a stream id, within the running event loop.

    Args:
        queue: Its queue, in case the job is gone.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    records = facilities().records
    key = await sync_to_async(records.follow, thread_sensitive=False)(job_id)
    key = key or records.stream_key(job_id, queue)
    reader = _reader(await _place_of(key))
    watcher = Watcher(reader, key, after)
    try:
        await reader.add(watcher)
        yield watcher
    finally:
        watcher.reader.remove(watcher)


class _Reader:
    """The connection of one event loop to one server, open while somebody watches a job.

    Args:
        place: Of the jobs' queues; "" for the only server.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._watchers: defaultdict[str, set[Watcher]] = defaultdict(set)
        self._connection_id = 0
        self._task: asyncio.Task[None] | None = None

    async def add(self, watcher: Watcher) -> None:
        self._watchers[watcher.key].add(watcher)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="job events")
        await self.ask_for(watcher)

    def remove(self, watcher: Watcher) -> None:
        watchers = self._watchers[watcher.key]
        watchers.discard(watcher)
        if not watchers:
            del self._watchers[watcher.key]
        if not self._watchers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def ask_for(self, watcher: Watcher) -> None:
        """Have the running read end, so that the next one includes a watcher."""
        watcher.asked.clear()
        for _ in range(ASK_TIMES):
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_S):
                    await watcher.asked.wait()
                    return
            if self._connection_id:
                # Without the permission the watcher is included within BLOCK_S.
                with suppress(BrokerError):
                    await sync_to_async(_unblock, thread_sensitive=False)(self._place, self._connection_id)

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            client = None
            try:
                client = await client_of_events(self._place)
                self._connection_id = await client.client_id()
                while True:
                    await self._read_once(client)
                    pause_s = FIRST_PAUSE_S
            except (redis.RedisError, OSError) as error:
                logger.warning("events of jobs are not read, connecting again: %s", type(error).__name__)
            finally:
                self._connection_id = 0
                if client is not None:
                    await client.aclose()
            await asyncio.sleep(pause_s)
            if self._place:
                await self._hand_over()
                if not self._watchers:
                    return
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _hand_over(self) -> None:
        """Give watchers whose job has moved to the reader of its new place."""
        for key in list(self._watchers):
            with suppress(BrokerError):
                place = await _place_of(key)
                if place == self._place:
                    continue
                for watcher in self._watchers.pop(key, set()):
                    watcher.reader = _reader(place)
                    await watcher.reader.add(watcher)

    async def _read_once(self, client: redis.asyncio.Redis) -> None:
        places: dict[str, str] = {}
        for key, watchers in self._watchers.items():
            for watcher in watchers:
                watcher.asked.set()
                if not watcher.lags:
                    places[key] = min(places.get(key, watcher.after), watcher.after, key=_number)
        if not places:  # all of them lag: one asks when it has fetched what waits
            await asyncio.sleep(ASK_AGAIN_S)
            return
        # Not wait_for: in Python 3.11 it loses the cancellation that arrives together with the answer.
        async with asyncio.timeout(BLOCK_S + GRACE_S):
            answer = await client.xread(cast("dict[Any, Any]", places), count=BATCH, block=int(BLOCK_S * 1000))
        found = cast("list[Any]", answer)
        for key, entries in found or []:
            interested = list(self._watchers.get(key.decode(), ()))
            for event_id, fields in entries:
                event = _event(event_id, fields)
                for watcher in interested:
                    watcher.offer(event)
        await asyncio.sleep(0)


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Reader]] = WeakKeyDictionary()


def _reader(place: str) -> _Reader:
    readers = _readers.setdefault(asyncio.get_running_loop(), {})
    if place not in readers:
        readers[place] = _Reader(place)
    return readers[place]


async def _place_of(key: str) -> str:
    """Return the place of a stream."""
    return await sync_to_async(facilities().records.calls.place_now, thread_sensitive=False)(key)


def _event(event_id: bytes, fields: dict[bytes, bytes]) -> JobEvent:
    data = json.loads(fields[b"data"])
    for name in TIMES:
        if isinstance(data.get(name), int):
            data[name] = iso_time(data[name])
    return JobEvent(event_id.decode(), fields[b"event"].decode(), data, len(fields[b"data"]))


def _number(event_id: str) -> tuple[int, int]:
    first, _, second = event_id.partition("-")
    return int(first), int(second or 0)


def _unblock(place: str, connection_id: int) -> None:
    if (server := facilities().records.calls.places().get(place)) is not None:
        server.command("CLIENT", "UNBLOCK", connection_id)


async def client_of_events(place: str = "") -> redis.asyncio.Redis:
    """Return a client of one connection to the server at a place; it waits as long as it is told."""
    url_at = sync_to_async(facilities().records.calls.url_at, thread_sensitive=False)
    return redis.asyncio.Redis.from_url(
        await url_at(place, switchyard_settings().broker_url),
        retry=Retry(NoBackoff(), 0),
        connection_class=AsyncServerConnection,  # but over TLS, where redis-py chooses its own by the address
        single_connection_client=True,
        driver_info=None,  # its name and version, which no user of the ACL file may tell
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=2.0,
    )
