"""Events of jobs, for pages and as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import redis.asyncio
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from switchyard.api.problems import Problem
from switchyard.api.responses import iso_time
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.redis.server_connection import NAMELESS, AsyncServerConnection
from switchyard.broker.stores.job_records import Job
from switchyard.conf import switchyard_settings
from switchyard.jobs.presentation import snapshot
from switchyard.jobs.queries import find_job

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
        self._wrong: set[str] = set()  # keys that are no streams: one of them would fail the read of all
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
        # Others, that ask while the server is read, may want events before these places: theirs is the next read.
        interested: defaultdict[str, list[Watcher]] = defaultdict(list)
        for key, watchers in self._watchers.items():
            for watcher in watchers:
                watcher.asked.set()
                if not watcher.lags and key not in self._wrong:
                    places[key] = min(places.get(key, watcher.after), watcher.after, key=_number)
                    interested[key].append(watcher)
        if not places:  # all of them lag: one asks when it has fetched what waits
            await asyncio.sleep(ASK_AGAIN_S)
            return
        # Not wait_for: in Python 3.11 it loses the cancellation that arrives together with the answer.
        async with asyncio.timeout(BLOCK_S + GRACE_S):
            try:
                answer = await client.xread(cast("dict[Any, Any]", places), count=BATCH, block=int(BLOCK_S * 1000))
            except redis.ResponseError:
                wrong = {key for key in places if await client.type(key) not in (b"stream", b"none")}
                if not wrong:
                    raise
                logger.error("keys of events have another type, and are not read: %s", ", ".join(sorted(wrong)))
                self._wrong |= wrong
                return
        found = cast("list[Any]", answer)
        for key, entries in found or []:
            for event_id, fields in entries:
                if (event := _event(event_id, fields)) is None:
                    continue
                for watcher in interested[key.decode()]:
                    watcher.offer(event)
        await asyncio.sleep(0)


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Reader]] = WeakKeyDictionary()


def _reader(place: str) -> _Reader:
    readers = _readers.setdefault(asyncio.get_running_loop(), {})
    if place not in readers:
        readers[place] = _Reader(place)
    return readers[place]


async def _place_of(key: str) -> str:
    return await sync_to_async(facilities().records.calls.place_now, thread_sensitive=False)(key)


def _event(event_id: bytes, fields: dict[bytes, bytes]) -> JobEvent | None:
    """Return an event, or nothing for an entry that no worker has written."""
    try:
        data = json.loads(fields[b"data"])
        for name in TIMES:
            if isinstance(data.get(name), int):
                data[name] = iso_time(data[name])
        return JobEvent(event_id.decode(), fields[b"event"].decode(), data, len(fields[b"data"]))
    except (KeyError, ValueError, AttributeError, RecursionError) as error:
        logger.error("event %s of a job cannot be read: %r", event_id, error)
        return None


def _number(event_id: str) -> tuple[int, int]:
    first, _, second = event_id.partition("-")
    return int(first), int(second or 0)


def _unblock(place: str, connection_id: int) -> None:
    if (server := facilities().records.calls.places().get(place.partition("#")[0])) is not None:
        server.command("CLIENT", "UNBLOCK", connection_id)


async def client_of_events(place: str = "") -> redis.asyncio.Redis:
    """Return a client of one connection to the server at a place, without a time limit of its own for answers."""
    url_at = sync_to_async(facilities().records.calls.url_at, thread_sensitive=False)
    return redis.asyncio.Redis.from_url(
        await url_at(place, switchyard_settings().broker_url),
        retry=Retry(NoBackoff(), 0),
        connection_class=AsyncServerConnection,  # but over TLS, where redis-py chooses its own by the address
        single_connection_client=True,
        **NAMELESS,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=2.0,
    )


HEARTBEAT_S = 15.0
RECONNECT_MS = 2_000
STREAMS_PER_CALLER = 32
# Django keeps a thread for each.
STREAMS_PER_PROCESS = 128
RETRY_AFTER = {"Retry-After": "15"}
_EVENT_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
# Redis stream ids have two parts of 64 bits.
_MAX_ID_PART = 2**64 - 1


class StreamPlace:
    """The place of one open stream among those of its caller and of this process, until it is closed."""

    _open: Counter[str] = Counter()
    _lock = threading.RLock()  # a collection of garbage may close one place while another is acquired
    _caller = ""

    def __init__(self, caller: str) -> None:
        """Acquire a place.

        Args:
            caller: Prefix of an API token, or ``user:`` and the key of a user of the admin.

        Raises:
            Problem: 429, the caller has as many streams as it may; 503, the process has.
        """
        with self._lock:
            if self._open[caller] >= STREAMS_PER_CALLER:
                detail = f"{STREAMS_PER_CALLER} event streams of this token or user are open, the limit; close some"
                raise Problem(429, detail, headers=RETRY_AFTER)
            if self._open.total() >= STREAMS_PER_PROCESS:
                raise Problem(503, "all event streams of this process are in use; try again later", headers=RETRY_AFTER)
            self._caller = caller
            self._open[caller] += 1

    def close(self) -> None:
        """Release the place, once."""
        with self._lock:
            caller, self._caller = self._caller, ""
            if caller:
                self._open[caller] -= 1
                if not self._open[caller]:
                    del self._open[caller]

    def __del__(self) -> None:
        # Django drops, without closing it, a response whose client left before it was sent.
        self.close()


async def has_news(job: Job, after: str) -> bool:
    """Return whether events follow ``after``; none do if the job has ended and its last event was read."""
    if not job.ended or not is_event_id(after):
        return True
    return bool(await _ask("XRANGE", job, f"({after}", "+", "COUNT", 1))


async def answer(request: HttpRequest, job: Job, *, caller: str, allowed: Callable[[], bool]) -> HttpResponseBase:
    """Return the response that follows a job after the request's ``Last-Event-ID``; 204 where nothing follows.

    ``allowed`` is called in a thread every ``HEARTBEAT_S``: when the caller may not follow the job any more, it ends.

    Raises:
        Problem: see ``StreamPlace``.
        BrokerUnavailable: the broker did not answer.
    """
    after = request.headers.get("Last-Event-ID", "")
    if not await has_news(job, after):
        return HttpResponse(status=204)
    await free_database()
    events = follow(job, after=after, heartbeat_s=HEARTBEAT_S)
    return response(_while_allowed(events, allowed), place=StreamPlace(caller))


def response(events: AsyncGenerator[bytes], *, place: StreamPlace) -> StreamingHttpResponse:
    """Return the response of server-sent events, which releases its place when it is closed."""
    return StreamingHttpResponse(
        Stream(events, place),
        content_type="text/event-stream",
        # Django's GZipMiddleware would make each event a file of its own, of which browsers read the first.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Encoding": "identity"},
    )


async def follow(job: Job, *, after: str, heartbeat_s: float) -> AsyncGenerator[bytes]:
    """Yield a job's events as server-sent events, up to the one named ``end``.

    Starts with the job's state, or with the events after ``after``; then follows new events. Sends a comment after
    every ``heartbeat_s`` seconds without an event. If the broker is away at such a moment, the stream ends without
    ``end``: the reader reconnects after its last event.
    """
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    try:
        async with aclosing(_events(job, after, heartbeat_s)) as events:
            async for chunk in events:
                yield chunk
    except BrokerError as error:
        logger.warning("stream of a job's events ended early: %s", type(error).__name__, extra={"message_id": job.id})


async def _while_allowed(events: AsyncGenerator[bytes], allowed: Callable[[], bool]) -> AsyncGenerator[bytes]:
    def ask() -> bool:
        try:
            return allowed()
        except DatabaseError:
            return True  # asked again; until then the rights are those of the last answer
        finally:
            connections.close_all()  # of this thread, which no request uses

    asked_s = time.monotonic()
    async with aclosing(events):
        async for chunk in events:
            if time.monotonic() - asked_s >= HEARTBEAT_S:
                asked_s = time.monotonic()
                if not await sync_to_async(ask, thread_sensitive=False)():
                    return
            yield chunk


def is_event_id(text: str) -> bool:
    """Return whether a text is a valid stream id that another id can follow."""
    found = _EVENT_ID.fullmatch(text)
    return found is not None and all(int(part) < _MAX_ID_PART for part in found.groups())


async def _events(job: Job, after: str, heartbeat_s: float) -> AsyncGenerator[bytes]:
    goes_on = is_event_id(after)
    # The last event is read before the state: one between the two reads is sent twice rather than never.
    last = after if goes_on else await _last_id(job)
    async with watch(job.id, job.queue, after=last) as watcher:
        if not goes_on:
            job = await _find(job.id) or job
            yield _sse("state", snapshot(job), last)
            if job.ended:
                yield _sse("end", snapshot(job), last)
                return
        while True:
            events = await watcher.next(heartbeat_s)
            for event in events:
                last = event.id
                if event.name == "end" and not await _ended(job.id):
                    continue  # the job was requeued since
                yield _sse(event.name, event.data, last)
                if event.name == "end":
                    return
            if events:
                continue
            yield b": heartbeat\n\n"
            known = await _find(job.id)
            if known is None:
                return
            if known.ended:  # the stream was trimmed or has expired
                yield _sse("state", snapshot(known), last)
                yield _sse("end", snapshot(known), last)
                return


async def _last_id(job: Job) -> str:
    # Before the first follower a job keeps no events: those from here on are followed.
    newest = await _ask("XREVRANGE", job, "+", "-", "COUNT", 1)
    return str(newest[0][0], "utf-8") if newest else "0-0"


async def _ask(command: str, job: Job, *arguments: str | int) -> Any:
    records = facilities().records
    return await sync_to_async(records.calls.command, thread_sensitive=False)(
        command, records.stream_key(job.id, job.queue), *arguments
    )


async def _find(job_id: str) -> Job | None:
    return await sync_to_async(find_job, thread_sensitive=False)(job_id)


async def _ended(job_id: str) -> bool:
    job = await _find(job_id)
    return job is None or job.ended


def _sse(name: str, data: dict[str, Any], event_id: str) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Stream:
    """Chunks for a ``StreamingHttpResponse``, closed together with it.

    Django closes its iterator over the generator, not the generator: when a client disconnects in the middle, the
    generator's ``finally`` would wait for the garbage collector.

    Args:
        chunks: A generator that was not started, of the running event loop.
        place: Closed as well: the ``finally`` of a generator that never started does not run.
    """

    def __init__(self, chunks: AsyncGenerator[bytes], place: StreamPlace) -> None:
        self._chunks, self._place = chunks, place
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> AsyncGenerator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Schedule the generator's clean-up. The response calls this method from any thread."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(_close(self._chunks), self._loop)
        self._place.close()


async def free_database() -> None:
    """Close this request's database connections, which Django would keep until the stream ends."""
    await sync_to_async(connections.close_all)()


async def _close(chunks: AsyncGenerator[bytes]) -> None:
    await chunks.aclose()
