"""Events of jobs, for pages and as server-sent events."""

import asyncio
import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from switchyard.api.problems import Problem
from switchyard.api.responses import iso_time
from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_records import Job
from switchyard.jobs.presentation import snapshot
from switchyard.jobs.queries import find_job

# Events of one job in one answer of the server, and kept for a watcher that does not fetch.
BATCH = 32
# One round trip for all jobs that a process follows.
POLL_S, PAUSE_S = 0.25, 2.0
TIMES = ("at", "next_attempt_at")
logger = logging.getLogger(__name__)


class JobEvent(NamedTuple):
    """One event of a job: its place in the job's stream; ``state``, ``progress`` or ``end``; times in ISO 8601."""

    id: str
    name: str
    data: dict[str, Any]


class Watcher:
    """The events of one job after a place; see :func:`watch`."""

    def __init__(self, key: str, after: str) -> None:
        self.key, self.after = key, after
        self.waiting: list[JobEvent] = []
        self._news = asyncio.Event()

    async def next(self, timeout_s: float) -> list[JobEvent]:
        """Return the events since the last call, oldest first; waits for one, and returns none after ``timeout_s``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        self._news.clear()
        events, self.waiting = self.waiting, []
        return events

    def keep(self, entries: list[tuple[bytes, list[bytes]]]) -> None:
        """Keep entries of the stream until they are fetched; the next ones are left in the broker until then."""
        self.after = str(entries[-1][0], "ascii")
        self.waiting = [event for entry in entries if (event := _event(*entry)) is not None]
        if self.waiting:
            self._news.set()


@asynccontextmanager
async def watch(job_id: str, queue: str, *, after: str) -> AsyncGenerator[Watcher]:
    """Watch a job's events after a stream id, within the running event loop; its queue is for a job that is gone."""
    records = facilities().records
    key = await sync_to_async(records.follow, thread_sensitive=False)(job_id)
    watcher = Watcher(key or records.stream_key(job_id, queue), after)
    reader = _readers.setdefault(asyncio.get_running_loop(), _Reader())
    reader.add(watcher)
    try:
        yield watcher
    finally:
        reader.remove(watcher)


class _Reader:
    """The reader of one event loop, which runs while somebody watches a job."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()
        self._task: asyncio.Task[None] | None = None

    def add(self, watcher: Watcher) -> None:
        self._watchers.add(watcher)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="job events")

    def remove(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        if not self._watchers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.sleep(0 if await self.read_once() else POLL_S)
            except BrokerError as error:
                logger.warning("events of jobs are not read, trying again: %s", type(error).__name__)
                await asyncio.sleep(PAUSE_S)

    async def read_once(self) -> bool:
        """Return whether there was news: more may follow at once."""
        idle = [watcher for watcher in self._watchers if not watcher.waiting]
        places = [(watcher.key, watcher.after) for watcher in idle]
        answers = await sync_to_async(_read, thread_sensitive=False)(places)
        for watcher, entries in zip(idle, answers, strict=True):
            if entries:
                watcher.keep(entries)
        return any(answers)


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Reader] = WeakKeyDictionary()


def _read(places: list[tuple[str, str]]) -> list[Any]:
    commands = [("XRANGE", key, f"({after}", "+", "COUNT", BATCH) for key, after in places]
    calls = facilities().records.calls
    try:
        return calls.look(commands) if commands else []
    except BrokerUnavailable:  # of some servers, maybe: jobs on the others go on
        answers = calls.pipeline(commands, raise_errors=False)
        return [None if isinstance(answer, BrokerError) else answer for answer in answers]


def _event(event_id: bytes, pairs: list[bytes]) -> JobEvent | None:
    """Return an event, or nothing for an entry that no worker has written."""
    try:
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        data = json.loads(fields[b"data"])
        for name in TIMES:
            if isinstance(data.get(name), int):
                data[name] = iso_time(data[name])
        return JobEvent(event_id.decode(), fields[b"event"].decode(), data)
    except (KeyError, ValueError, AttributeError, RecursionError) as error:
        logger.error("event %s of a job cannot be read: %r", event_id, error)
        return None


HEARTBEAT_S = 15.0
RECONNECT_MS = 2_000
STREAMS_PER_CALLER = 32
# Django keeps a thread for each.
STREAMS_PER_PROCESS = 128
RETRY_AFTER = {"Retry-After": "15"}
# The parts of stream ids have 64 bits, which hold every number of 19 digits.
EVENT_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


async def answer(request: HttpRequest, job: Job, *, caller: str, allowed: Callable[[], bool]) -> HttpResponseBase:
    """Return the response that follows a job after the request's ``Last-Event-ID``; 204 where nothing follows.

    ``allowed`` is called in a thread every ``HEARTBEAT_S``: when the caller may not follow the job any more, it ends.

    Raises:
        Problem: 429, the caller has as many streams as it may; 503, the process has.
        BrokerUnavailable: the broker did not answer.
    """
    after = request.headers.get("Last-Event-ID", "")
    if job.ended and EVENT_ID.fullmatch(after) and not await _ask("XRANGE", job, f"({after}", "+", "COUNT", 1):
        return HttpResponse(status=204)
    await free_database()
    return StreamingHttpResponse(
        Stream(follow(job, after=after, allowed=allowed), caller),
        content_type="text/event-stream",
        # Django's GZipMiddleware would make each event a file of its own, of which browsers read the first.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Encoding": "identity"},
    )


async def follow(job: Job, *, after: str, allowed: Callable[[], bool]) -> AsyncGenerator[bytes]:
    """Yield a job's events as server-sent events, up to the one named ``end``, while the caller is ``allowed``.

    Starts with the job's state, or with the events after ``after``; then follows new events. Sends a comment after
    every ``HEARTBEAT_S`` without an event. If the broker is away at such a moment, the stream ends without ``end``: the
    reader reconnects after its last event.
    """
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    goes_on, last = EVENT_ID.fullmatch(after) is not None, after
    try:
        if not goes_on:
            # Read before the state: an event between the two reads is sent twice rather than never. Before the first
            # follower a job keeps no events: those from here on are followed.
            newest = await _ask("XREVRANGE", job, "+", "-", "COUNT", 1)
            last = str(newest[0][0], "utf-8") if newest else "0-0"
        async with watch(job.id, job.queue, after=last) as watcher:
            if not goes_on:
                job = await _find(job.id) or job
                yield _sse("state", snapshot(job), last)
                if job.ended:
                    yield _sse("end", snapshot(job), last)
                    return
            asked_s = time.monotonic()
            while True:
                events = await watcher.next(HEARTBEAT_S)
                if time.monotonic() - asked_s >= HEARTBEAT_S:
                    asked_s = time.monotonic()
                    if not await sync_to_async(_is_allowed, thread_sensitive=False)(allowed):
                        return
                for event in events:
                    last = event.id
                    if event.name == "end" and (known := await _find(job.id)) is not None and not known.ended:
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
    except BrokerError as error:
        logger.warning("stream of a job's events ended early: %s", type(error).__name__, extra={"message_id": job.id})


def _is_allowed(allowed: Callable[[], bool]) -> bool:
    try:
        return allowed()
    except DatabaseError:
        return True  # asked again; until then the rights are those of the last answer
    finally:
        connections.close_all()  # of this thread, which no request uses


async def _ask(command: str, job: Job, *arguments: str | int) -> Any:
    records = facilities().records
    return await sync_to_async(records.calls.command, thread_sensitive=False)(
        command, records.stream_key(job.id, job.queue), *arguments
    )


_find = sync_to_async(find_job, thread_sensitive=False)


def _sse(name: str, data: dict[str, Any], event_id: str) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Stream:
    """Chunks for a ``StreamingHttpResponse``, closed together with it; one of the open ones of its caller.

    Django closes its iterator over the generator, not the generator: when a client disconnects in the middle, the
    generator's ``finally`` would wait for the garbage collector.

    Args:
        chunks: A generator that was not started, of the running event loop.
        caller: Prefix of an API token, or ``user:`` and the key of a user of the admin.

    Raises:
        Problem: 429, the caller has as many streams as it may; 503, the process has.
    """

    _open: Counter[str] = Counter()
    _lock = threading.RLock()  # a collection of garbage may release one place while another is acquired
    _caller = ""

    def __init__(self, chunks: AsyncGenerator[bytes], caller: str) -> None:
        self._chunks, self._loop = chunks, asyncio.get_running_loop()
        with self._lock:
            if self._open[caller] >= STREAMS_PER_CALLER:
                detail = f"{STREAMS_PER_CALLER} event streams of this token or user are open, the limit; close some"
                raise Problem(429, detail, headers=RETRY_AFTER)
            if self._open.total() >= STREAMS_PER_PROCESS:
                raise Problem(503, "all event streams of this process are in use; try again later", headers=RETRY_AFTER)
            self._caller = caller
            self._open[caller] += 1

    def __aiter__(self) -> AsyncGenerator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Schedule the generator's clean-up. The response calls this method from any thread."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(_close(self._chunks), self._loop)
        self._release()

    def __del__(self) -> None:
        # Django drops, without closing it, a response whose client left before it was sent.
        self._release()

    def _release(self) -> None:
        with self._lock:
            caller, self._caller = self._caller, ""
            if caller:
                self._open[caller] -= 1
                if not self._open[caller]:
                    del self._open[caller]


# Closes this request's database connections, which Django would keep until the stream ends.
free_database = sync_to_async(connections.close_all)


async def _close(chunks: AsyncGenerator[bytes]) -> None:
    await chunks.aclose()
