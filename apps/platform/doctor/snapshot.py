"""What the broker knows at one moment, read once for every check of pools and queues, over a quick connection."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import redis

from apps.platform.conf import declared_yard, switchyard_settings
from broker.admin.stats import family_stats
from broker.keys.keys import Keys
from broker.keys.queue_keys import ALL_LANES, QueueKeys
from broker.redis.connections import connect
from broker.shapes import QueueStats
from broker.stores.pool_reports import PoolReport, PoolReports

CRASH_NOTES = 1_000
PARKED_SHOWN = 100
LOOKED_AT_KEYS = 200_000
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class QueueLook:
    """One queue family.

    Args:
        lapsed: Owner whose lease ran out -> seconds since it did.
        lapsed_messages: What those owners hold.
        crashed: Message id -> how often it took its worker down.
        unknown: Actors that parked messages call; of many messages only some are looked at.
    """

    stats: QueueStats
    lapsed: dict[str, float]
    lapsed_messages: int
    crashed: dict[str, int]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Args: ``now_ms`` by the server's clock; ``undeclared``: queue that no yard declares -> messages in it."""

    now_ms: int
    queues: dict[str, QueueLook]
    reports: list[PoolReport]
    undeclared: dict[str, int]


@contextmanager
def quick_client() -> Iterator[redis.Redis]:
    """Give a client that waits for a second at the most."""
    client = connect(switchyard_settings().broker_url, profile="quick")
    try:
        yield client
    finally:
        client.close()


def read() -> Snapshot:
    """Ask the broker.

    Raises:
        redis.RedisError: it does not answer.
    """
    keys = Keys()
    with quick_client() as client:
        seconds, micros = client.time()
        now_ms = seconds * 1000 + micros // 1000
        return Snapshot(
            now_ms=now_ms,
            queues={queue.name: _queue(client, keys.queue(queue.name), now_ms) for queue in declared_yard().queues},
            reports=PoolReports(client, keys).read_all(),
            undeclared=_undeclared(client, keys),
        )


def _queue(client: redis.Redis, keys: QueueKeys, now_ms: int) -> QueueLook:
    stats = family_stats(client, keys)
    with client.pipeline(transaction=False) as pipe:
        pipe.zrangebyscore(keys.leases, "(0", now_ms, withscores=True)  # an owner with 0 is being cleared right now
        pipe.hscan(keys.notes, 0, match="crash:*", count=CRASH_NOTES)
        for lane in ALL_LANES:
            pipe.zrange(keys.parked(lane), 0, PARKED_SHOWN - 1)
        found, (_, notes), *parked = pipe.execute()
        lapsed = {str(owner, "utf-8", "replace"): (now_ms - until) / 1000 for owner, until in found}
        for owner in lapsed:
            pipe.hlen(keys.hold(owner))
            pipe.hexists(keys.hold(owner), "#")
        answers = pipe.execute()
    held = sum(answers[::2]) - sum(answers[1::2])
    crashed = {
        str(name, "utf-8", "replace").removeprefix("crash:"): int(count[0])
        for name, note in notes.items()
        if (count := re.match(rb"\d{1,9}", note)) and int(count[0])
    }
    unknown = sorted({_actor(member) for members in parked for member in members})
    return QueueLook(stats, lapsed, held, crashed, tuple(unknown))


def _actor(member: bytes) -> str:
    """Return the actor that a parked message calls, from its place in the list of them."""
    try:
        call = json.loads(member.partition(b"\n")[0])
        return str(call[0])[:80]
    except (ValueError, LookupError, TypeError, RecursionError):
        return "?"


def _undeclared(client: redis.Redis, keys: Keys) -> dict[str, int]:
    """Return queues that hold messages and are in no declaration; of a large server only a part is looked at."""
    declared = {queue.name for queue in declared_yard().queues}
    prefix = f"{keys.prefix}:{{"
    found: dict[str, int] = {}
    cursor, looked_at, deadline = 0, 0, time.monotonic() + LOOK_S
    while looked_at < LOOKED_AT_KEYS and time.monotonic() < deadline:
        cursor, names = client.scan(cursor, match=f"{prefix}*:bodies", count=2_000)
        looked_at += 2_000
        for key in cast("list[bytes]", names):
            queue = key.decode("utf-8", "replace").removeprefix(prefix).partition("}")[0]
            if queue not in declared:
                found[queue] = int(client.hlen(key))
        if not cursor:
            break
    return found
