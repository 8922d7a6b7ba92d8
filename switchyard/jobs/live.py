"""A job's events as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from switchyard.api.problems import Problem
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_records import JobRecord
from switchyard.jobs.job_events import watch
from switchyard.jobs.presentation import snapshot
from switchyard.jobs.queries import find_job

HEARTBEAT_S = 15.0
RECONNECT_MS = 2_000
STREAMS_PER_CALLER = 32
# Django keeps a thread for each.
STREAMS_PER_PROCESS = 128
RETRY_AFTER = {"Retry-After": "15"}
_EVENT_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
# Redis stream ids have two parts of 64 bits.
_MAX_ID_PART = 2**64 - 1
logger = logging.getLogger(__name__)


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
                raise Problem(503, "as many event streams are open as may be; try again later", headers=RETRY_AFTER)
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


async def has_news(job: JobRecord, after: str) -> bool:
    """Return whether events follow ``after``; none do if the job has ended and its last event was read.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    if not job.ended or not is_event_id(after):
        return True
    return bool(await _ask("XRANGE", job, f"({after}", "+", "COUNT", 1))


async def answer(request: HttpRequest, job: JobRecord, *, caller: str) -> HttpResponseBase:
    """Return the response that follows a job after the request's ``Last-Event-ID``; 204 where nothing follows.

    Raises:
        Problem: see ``StreamPlace``.
        BrokerUnavailable: the broker did not answer.
    """
    after = request.headers.get("Last-Event-ID", "")
    if not await has_news(job, after):
        return HttpResponse(status=204)
    await free_database()
    return response(follow(job, after=after, heartbeat_s=HEARTBEAT_S), place=StreamPlace(caller))


def response(events: AsyncGenerator[bytes], *, place: StreamPlace) -> StreamingHttpResponse:
    """Return the response of server-sent events, which releases its place when it is closed."""
    return StreamingHttpResponse(
        Stream(events, source=place),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def follow(job: JobRecord, *, after: str, heartbeat_s: float) -> AsyncGenerator[bytes]:
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


def is_event_id(text: str) -> bool:
    """Return whether a text is a valid stream id that another id can follow."""
    found = _EVENT_ID.fullmatch(text)
    return found is not None and all(int(part) < _MAX_ID_PART for part in found.groups())


async def _events(job: JobRecord, after: str, heartbeat_s: float) -> AsyncGenerator[bytes]:
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


async def _last_id(job: JobRecord) -> str:
    # Before the first follower a job keeps no events: those from here on are followed.
    newest = await _ask("XREVRANGE", job, "+", "-", "COUNT", 1)
    return str(newest[0][0], "utf-8") if newest else "0-0"


async def _ask(command: str, job: JobRecord, *arguments: str | int) -> Any:
    records = facilities().records
    return await sync_to_async(records.calls.command, thread_sensitive=False)(
        command, records.stream_key(job.id, job.queue), *arguments
    )


async def _find(job_id: str) -> JobRecord | None:
    return await sync_to_async(find_job, thread_sensitive=False)(job_id)


async def _ended(job_id: str) -> bool:
    job = await _find(job_id)
    return job is None or job.ended


def _sse(name: str, data: dict[str, Any], event_id: str) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Closable(Protocol):
    """A resource of a stream."""

    def close(self) -> object:
        """Release the resource. Called from any thread."""


class Stream:
    """Chunks for a ``StreamingHttpResponse``, closed together with it.

    Django closes its iterator over the generator, not the generator: when a client disconnects in the middle, the
    generator's ``finally`` would wait for the garbage collector.

    Args:
        chunks: A generator that was not started, of the running event loop.
        source: Closed as well: the ``finally`` of a generator that never started does not run.
    """

    def __init__(self, chunks: AsyncGenerator[bytes], *, source: Closable | None = None) -> None:
        self._chunks = chunks
        self._source = source
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> AsyncGenerator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Schedule the generator's clean-up. The response calls this method from any thread."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(_close(self._chunks), self._loop)
        if self._source is not None:
            self._source.close()


async def free_database() -> None:
    """Close this request's database connections, which Django would keep until the stream ends."""
    await sync_to_async(connections.close_all)()


async def _close(chunks: AsyncGenerator[bytes]) -> None:
    await chunks.aclose()
