"""A job's events as server-sent events, read from the job's Redis stream."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import redis.asyncio
from asgiref.sync import sync_to_async
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from apps.platform.api.responses import iso_time
from apps.platform.conf import switchyard_settings
from apps.platform.jobs.presentation import snapshot
from apps.platform.jobs.queries import find_job
from broker.errors import BrokerError, BrokerUnavailable
from broker.interface import facilities
from broker.stores.job_records import JobRecord

HEARTBEAT_S = 15.0
RECONNECT_MS = 2_000
BATCH = 100
# Seconds after the end of a blocking read until the server counts as unreachable.
GRACE_S = 5.0
TIMES = ("at", "next_attempt_at")
_EVENT_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
# Redis stream ids have two parts of 64 bits.
_MAX_ID_PART = 2**64 - 1
logger = logging.getLogger(__name__)

Entry = tuple[str, str, dict[str, Any]]


async def has_news(job: JobRecord, after: str) -> bool:
    """Return whether events follow ``after``; none do if the job has ended and its last event was read.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    if not job.ended or not is_event_id(after):
        return True
    client = _client()
    try:
        found = await client.xrange(facilities().records.stream_key(job.id), min=f"({after}", count=1)
    except (redis.RedisError, OSError) as error:
        raise BrokerUnavailable("a job's events", str(error) or type(error).__name__) from error
    finally:
        await client.aclose()
    return bool(found)


async def follow(job: JobRecord, *, after: str, heartbeat_s: float) -> AsyncGenerator[bytes]:
    """Yield a job's events as server-sent events, up to the one named ``end``.

    Starts with the job's state, or with the events after ``after``; then follows new events. Sends a comment after
    every ``heartbeat_s`` seconds without an event. Holds one connection to the broker and closes it with the generator.
    If the broker becomes unavailable, the stream ends without ``end``: the reader reconnects after its last event.
    """
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    client = _client()
    try:
        async with aclosing(_events(client, job, after, heartbeat_s)) as events:
            async for chunk in events:
                yield chunk
    except (BrokerError, redis.RedisError, OSError) as error:
        logger.warning("stream of a job's events ended early: %s", type(error).__name__, extra={"message_id": job.id})
    finally:
        await client.aclose()


def is_event_id(text: str) -> bool:
    """Return whether a text is a valid stream id that another id can follow."""
    found = _EVENT_ID.fullmatch(text)
    return found is not None and all(int(part) < _MAX_ID_PART for part in found.groups())


async def _events(client: redis.asyncio.Redis, job: JobRecord, after: str, heartbeat_s: float) -> AsyncGenerator[bytes]:
    records = facilities().records
    key = records.stream_key(job.id)
    await sync_to_async(records.follow, thread_sensitive=False)(job.id)
    if is_event_id(after):
        last = after
    else:
        # In this order: an event between the two reads is sent twice rather than never.
        last = await _last_id(client, key)
        job = await _find(job.id) or job
        yield _sse("state", snapshot(job), last)
        if job.ended:
            yield _sse("end", snapshot(job), last)
            return
    while True:
        entries = await _read(client, key, last, heartbeat_s)
        for last, name, data in entries:
            if name == "end" and not await _ended(job.id):
                continue  # the job was requeued since
            yield _sse(name, data, last)
            if name == "end":
                return
        if not entries:
            yield b": heartbeat\n\n"
            known = await _find(job.id)
            if known is None:
                return
            if known.ended:  # the stream was trimmed or has expired
                yield _sse("state", snapshot(known), last)
                yield _sse("end", snapshot(known), last)
                return


async def _read(client: redis.asyncio.Redis, key: str, last: str, block_s: float) -> list[Entry]:
    reading = client.xread({key: last}, count=BATCH, block=max(int(block_s * 1000), 1))
    found = cast("list[Any]", await asyncio.wait_for(reading, block_s + GRACE_S))
    if not found:
        return []
    return [_entry(event_id, fields) for event_id, fields in found[0][1]]


def _entry(event_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    data = json.loads(fields[b"data"])
    for name in TIMES:
        if isinstance(data.get(name), int):
            data[name] = iso_time(data[name])
    return event_id.decode(), fields[b"event"].decode(), data


async def _last_id(client: redis.asyncio.Redis, key: str) -> str:
    newest = cast("list[Any]", await client.xrevrange(key, count=1))
    return newest[0][0].decode() if newest else "0-0"


async def _find(job_id: str) -> JobRecord | None:
    return await sync_to_async(find_job, thread_sensitive=False)(job_id)


async def _ended(job_id: str) -> bool:
    job = await _find(job_id)
    return job is None or job.ended


def _sse(name: str, data: dict[str, Any], event_id: str) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _client() -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(
        switchyard_settings().broker_url,
        retry=Retry(NoBackoff(), 0),
        max_connections=1,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=2.0,
    )
