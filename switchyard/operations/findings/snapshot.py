"""State of pools and queues in the broker, read once for all checks, over a connection with short timeouts."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import redis

from switchyard.broker.admin.look_through import fields_of
from switchyard.broker.admin.stats import family_stats
from switchyard.broker.health.servers import NOTHING_AWAY, AwayPart, servers_of
from switchyard.broker.keys.queue_keys import ALL_LANES, QueueKeys
from switchyard.broker.redis.access import calls_on
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.connections import Client, connect
from switchyard.broker.shapes import QueueStats
from switchyard.broker.stores.pool_reports import Instruction, PoolReport, PoolReports, SilentSupervisor
from switchyard.conf import declared_yard, switchyard_settings

CRASH_NOTES = 1_000
# Note of a suspect beside its message: time of the last change, its lone run, its counted lapses. It counts for 72 h.
SUSPECT = re.compile(rb"(\d{1,15}) \S+ (\S+)")
SUSPECTED_MS = 72 * 3_600_000
PARKED_SHOWN = 100
SCANNED_KEYS, SCANNED_AT_ONCE = 200_000, 2_000
SCAN_S = 0.5
AWAY = (redis.ConnectionError, redis.TimeoutError)


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """One queue with its retry lane.

    Args:
        expired: Owner of an expired lease -> seconds since it expired.
        expired_messages: Messages that those owners hold.
        crashed: Message id -> number of worker crashes while it ran.
        actors: Id of one of those messages -> its actor, as far as it can be read.
        lapses: Id of a lapse suspect -> number of times that its pool ended while it ran alone.
        unknown: Actors called by parked messages, of the first ``PARKED_SHOWN`` of each lane.
    """

    stats: QueueStats
    expired: dict[str, float]
    expired_messages: int
    crashed: dict[str, int]
    actors: dict[str, str]
    lapses: dict[str, int]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the yard.

    Args:
        now_ms: Time of the server's clock.
        queues: Without those whose server does not answer.
        away: Part of the yard that does not answer.
        instructions: By member, those by which supervisors are quieted.
    """

    now_ms: int
    queues: dict[str, QueueFacts]
    reports: list[PoolReport]
    silent: list[SilentSupervisor]
    away: AwayPart = NOTHING_AWAY
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @property
    def pools_known(self) -> bool:
        """Whether the server with the pools' reports answers."""
        return not self.away.keys


@contextmanager
def quick_client() -> Iterator[Client]:
    """Provide a client that waits for at most 1 s."""
    client = connect(switchyard_settings().broker_url, profile="quick")
    try:
        yield client
    finally:
        client.close()


def read() -> Snapshot:
    """Read the state from the broker.

    Raises:
        BrokerError: the broker does not answer.
    """
    keys = declared_yard().keys
    with quick_client() as client, closing(calls_on(client, budget_s=1.0)) as calls:
        seconds, micros = client.time()
        now_ms = seconds * 1000 + micros // 1000
        names = [queue.name for queue in declared_yard().queues]
        away = servers_of(calls, keys, names).away(also=[keys.pool_reports()])
        there = [name for name in names if name not in away.queues]
        pools = PoolReports(calls, keys)
        reports = [] if away.keys else pools.read_all()
        return Snapshot(
            now_ms=now_ms,
            queues={name: _queue(calls, keys.queue(name), now_ms) for name in there},
            reports=reports,
            silent=[] if away.keys else pools.read_silent(reports, now_ms),
            away=away,
            instructions=pools.read_quieted(reports),
        )


def _queue(calls: RedisCalls, keys: QueueKeys, now_ms: int) -> QueueFacts:
    stats = family_stats(calls, keys, ages_held=True)
    reads: list[tuple[Word, ...]] = [
        ("ZRANGEBYSCORE", keys.leases, "(0", now_ms, "WITHSCORES"),  # score 0: the owner is being cleared
        ("HSCAN", keys.notes, 0, "MATCH", "crash:*", "COUNT", CRASH_NOTES),
        ("HSCAN", keys.suspects, 0, "COUNT", CRASH_NOTES),
        *(("ZRANGE", keys.parked(lane), 0, PARKED_SHOWN - 1) for lane in ALL_LANES),
    ]
    leases, (_, noted), (_, suspected), *parked = calls.pipeline(reads)
    expired = {str(owner, "utf-8", "replace"): (now_ms - float(until)) / 1000 for owner, until in _pairs(leases)}
    reads = [read for hold in map(keys.hold, expired) for read in (("HLEN", hold), ("HEXISTS", hold, "#"))]
    answers = calls.pipeline(reads)
    held = sum(answers[::2]) - sum(answers[1::2])
    notes, suspects = dict(_pairs(noted)), dict(_pairs(suspected))
    crashed = {
        str(name, "utf-8", "replace").removeprefix("crash:"): int(count[0])
        for name, note in notes.items()
        if (count := re.match(rb"\d{1,9}", note)) and int(count[0])
    }
    lapses = {
        str(name, "utf-8", "replace").removeprefix("crash:"): found[1].count(b"@")
        for name, note in notes.items()
        if (found := re.search(rb"\n@[\d,-]+ (\S*[@+]\S*)$", note))
    }
    for id_, stored in suspects.items():  # of messages that are on another server
        if (found := SUSPECT.fullmatch(stored)) and now_ms - int(found[1]) <= SUSPECTED_MS:
            lapses[str(id_, "utf-8", "replace")] = found[2].count(b"@")
    actors = _actors_of(calls, keys, [*crashed, *lapses])
    unknown = sorted({_actor(member) for members in parked for member in members})
    return QueueFacts(stats, expired, held, crashed, actors, lapses, tuple(unknown))


def _pairs(words: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(words[::2], words[1::2], strict=True))


def _actors_of(calls: RedisCalls, keys: QueueKeys, ids: list[str]) -> dict[str, str]:
    bodies = calls.command("HMGET", keys.bodies, *ids) if ids else []
    found = {id_: fields_of(body) for id_, body in zip(ids, bodies, strict=True) if body is not None}
    return {id_: fields.actor for id_, fields in found.items() if fields is not None}


def _actor(member: bytes) -> str:
    """Return the actor that a parked message calls, from its member of the sorted set."""
    try:
        call = json.loads(member.partition(b"\n")[0])
        return str(call[0])[:80]
    except (ValueError, LookupError, TypeError, RecursionError):
        return "?"


class QueueSearch:
    """Search for queues that the yard does not declare, continued by each call where the one before it ended.

    A call looks through at most ``SCANNED_KEYS`` keys, for at most ``SCAN_S``: more would delay other clients.
    """

    def __init__(self) -> None:
        self._cursors: dict[str, int] = {}  # of each server
        self._found: frozenset[str] = frozenset()

    def look(self) -> dict[str, int]:
        """Return the queues that were found so far and hold messages, with the number of these.

        Raises:
            redis.RedisError: the broker does not answer.
        """
        prefix = f"{declared_yard().keys.prefix}:{{"
        with quick_client() as client:
            found = set(self._found)
            servers = client.servers()
            away = AWAY if len(servers) > 1 else ()  # of several those that answer are searched
            for place, server in servers:
                with suppress(*away):
                    found |= self._search(place, server, prefix)
            counts = dict.fromkeys(sorted(found), 0)
            for key in counts:
                with suppress(*away):
                    counts[key] = cast("int", client.hlen(key))
        self._found = frozenset(key for key, count in counts.items() if count)
        return {_queue_of(key, prefix): count for key, count in counts.items()}

    def _search(self, place: str, client: redis.Redis, prefix: str) -> set[str]:
        found: set[str] = set()
        cursor = self._cursors.get(place, 0)
        scanned, deadline_s = 0, time.monotonic() + SCAN_S
        while scanned < SCANNED_KEYS and time.monotonic() < deadline_s:
            cursor, names = client.scan(cursor, match=f"{prefix}*:bodies", count=SCANNED_AT_ONCE)
            scanned += SCANNED_AT_ONCE
            found.update(str(key, "utf-8", "replace") for key in cast("list[bytes]", names))
            if not cursor:
                break
        self._cursors[place] = cursor
        declared = {queue.name for queue in declared_yard().queues}
        return {key for key in found if _queue_of(key, prefix) not in declared}


def _queue_of(key: str, prefix: str) -> str:
    """Return the queue whose bodies a key holds, also one of a slot group."""
    tag, _, rest = key.removeprefix(prefix).partition("}:")
    return rest.removeprefix("queue:").removesuffix(":bodies") if rest.startswith("queue:") else tag


_UNDECLARED = QueueSearch()


def undeclared_queues() -> dict[str, int]:
    """Return queues that the yard does not declare, as far as this process has looked, with their messages' number.

    Raises:
        redis.RedisError: the broker does not answer.
    """
    return _UNDECLARED.look()
