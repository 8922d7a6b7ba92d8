"""Facts of the yard at one moment, from which queues and pools are judged."""

import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast

import dramatiq
import redis
from django.db import DatabaseError
from dramatiq.message import Message

from switchyard.broker.admin.browse import compared_fields_of, family_stats, look
from switchyard.broker.admin.scheduled import PUT_OFF
from switchyard.broker.clock import datetime_of, put_off_reason
from switchyard.broker.errors import BrokerError
from switchyard.broker.health.servers import servers_of
from switchyard.broker.keys import ALL_LANES, QueueKeys
from switchyard.broker.queue.operations import QueueOperations, owners_of
from switchyard.broker.redis.calls import RedisCalls, Word, calls_on
from switchyard.broker.redis.connections import Client, connect
from switchyard.broker.redis.own_keys import UNREADABLE, moment, utf8
from switchyard.broker.shapes import QueueStats, shown_json
from switchyard.broker.stores.job_record import Job
from switchyard.broker.stores.pool_reports import PoolReport, PoolReports
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.jobs.presentation import limit_words
from switchyard.jobs.queries import families, records_of, running_or_none
from switchyard.middleware.arguments import signature_of
from switchyard.operations.findings.actors import AllFailing, all_failing, is_plain
from switchyard.operations.queries import YardState, pool_state, supervisors_of
from switchyard.operations.rows import Row, yard_rows
from switchyard.operations.supervisors import ServerState
from switchyard.operations.timeouts import answers_within
from switchyard.payload import shown_arguments

CRASH_NOTES = 1_000
# Note of a suspect beside its message: time of the last change, its lone run, its counted lapses. It counts for 72 h.
SUSPECT = re.compile(rb"(\d{1,15}) \S+ (\S+)")
SUSPECTED_MS = 72 * 3_600_000
PARKED_SHOWN = 100
SCANNED_KEYS, SCANNED_AT_ONCE, SCAN_S = 200_000, 2_000, 0.5
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
    """State of the yard by the server's clock, without queues whose server does not answer.

    The reports are also of pools that the yard does not declare, and ``state`` has none of the server's own figures.
    """

    now_ms: int
    queues: dict[str, QueueFacts]
    reports: list[PoolReport]
    state: YardState


def quick_client() -> closing[Client]:
    """Provide a client of the broker that waits for at most 1 s."""
    return closing(connect(switchyard_settings().broker_url, profile="quick"))


def read() -> Snapshot:
    yard, keys = declared_yard(), declared_yard().keys
    with quick_client() as client, closing(calls_on(client, budget_s=1.0)) as calls:
        seconds, micros = client.time()
        now_ms = seconds * 1000 + micros // 1000
        names = [queue.name for queue in yard.queues]
        away = servers_of(calls, keys, names).away(also=[keys.pool_reports()])
        queues = {name: _queue(calls, keys.queue(name), now_ms) for name in names if name not in away.queues}
        reports, silent = ([], []) if away.keys else supervisors_of(PoolReports(calls, keys), now_ms)
        quieted = PoolReports(calls, keys).read_quieted(reports)
    pools = {pool.name: pool_state(pool, reports, silent, quieted) for pool in yard.pools}
    stats, hosts = tuple(each.stats for each in queues.values()), frozenset(report.host for report in reports)
    server = ServerState(away=away, pools_known=not away.keys)
    return Snapshot(now_ms, queues, reports, YardState(stats, pools, scheduler_up=True, server=server, hosts=hosts))


def _queue(calls: RedisCalls, keys: QueueKeys, now_ms: int) -> QueueFacts:
    stats = family_stats(calls, keys, ages_held=True)
    reads: list[tuple[Word, ...]] = [
        ("ZRANGEBYSCORE", keys.leases, "(0", now_ms, "WITHSCORES"),  # score 0: the owner is being cleared
        ("HSCAN", keys.notes, 0, "MATCH", "crash:*", "COUNT", CRASH_NOTES),
        ("HSCAN", keys.suspects, 0, "COUNT", CRASH_NOTES),
        *(("ZRANGE", keys.parked(lane), 0, PARKED_SHOWN - 1) for lane in ALL_LANES),
    ]
    leases, (_, noted), (_, suspected), *parked = calls.look(reads)
    until_of = {utf8(owner): moment(until) for owner, until in _pairs(leases)}
    expired = {owner: (now_ms - until_of[owner]) / 1000 for owner in owners_of(leases[::2], keys.leases)}
    reads = [read for hold in map(keys.hold, expired) for read in (("HLEN", hold), ("HEXISTS", hold, "#"))]
    answers = calls.look(reads)
    held = sum(answers[::2]) - sum(answers[1::2])
    crashed: dict[str, int] = {}
    lapses: dict[str, int] = {}
    for name, note in _pairs(noted):
        id_ = utf8(name).removeprefix("crash:")
        if (count := re.match(rb"\d{1,9}", note)) and int(count[0]):
            crashed[id_] = int(count[0])
        if found := re.search(rb"\n@[\d,-]+ (\S*[@+]\S*)$", note):
            lapses[id_] = found[1].count(b"@")
    for name, stored in _pairs(suspected):  # of messages that are on another server
        if (found := SUSPECT.fullmatch(stored)) and now_ms - int(found[1]) <= SUSPECTED_MS:
            lapses[utf8(name)] = found[2].count(b"@")
    ids = [*crashed, *lapses]
    bodies = calls.look([("HMGET", keys.bodies, *ids)])[0] if ids else []
    fields = {id_: compared_fields_of(body) for id_, body in zip(ids, bodies, strict=True) if body is not None}
    actors = {id_: each.actor for id_, each in fields.items() if each is not None}
    unknown = sorted({_actor(member) for members in parked for member in members})
    return QueueFacts(stats, expired, held, crashed, actors, lapses, tuple(unknown))


def _pairs(words: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(words[::2], words[1::2], strict=True))


def _actor(member: bytes) -> str:
    """Return the actor that a parked message calls, from its member of the sorted set."""
    try:
        call = json.loads(member.partition(b"\n")[0])
        return str(call[0])[:80].encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be shown
    except (LookupError, TypeError, *UNREADABLE):
        return "?"


class QueueSearch:
    """Search for queues that the yard does not declare, continued by each call where the one before it ended.

    A call looks through at most ``SCANNED_KEYS`` keys, for at most ``SCAN_S``: more would delay other clients.
    """

    def __init__(self) -> None:
        self._cursors: dict[str, int] = {}  # of each server
        self._found: frozenset[str] = frozenset()

    def look(self) -> dict[str, int]:
        """Return the queues that were found so far and hold messages, with the number of these."""
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
            found.update(map(utf8, cast("list[bytes]", names)))
            if not cursor:
                break
        self._cursors[place] = cursor
        declared = {queue.name for queue in declared_yard().queues}
        return {key for key in found if _queue_of(key, prefix) not in declared}


def _queue_of(key: str, prefix: str) -> str:
    """Return the queue whose bodies a key holds, also one of a slot group."""
    tag, _, rest = key.removeprefix(prefix).partition("}:")
    return rest.removeprefix("queue:").removesuffix(":bodies") if rest.startswith("queue:") else tag


UNDECLARED = QueueSearch()


# A page that is read every few seconds decodes so many bodies at most.
LOOKED_THROUGH: Final = 200
AS_SENT: Final = "delay"
OF_PLACES: Final = ("concurrency", "order")
# Waiting messages of a late queue that are looked at: so many from its head, and as many from its end.
SAMPLE: Final = 100
# Share of one owner, or of what else messages have in common, from which a queue is flooded.
MOST: Final = 0.8
# Actors that hold slots of late queues and are asked for their failures, and how long the database may take for it.
MOST_HOLDERS, FAILURES_S = 5, 0.5


@dataclass(frozen=True, slots=True)
class HeldGroup:
    """Scheduled messages of one actor that are held for one reason, among the next to be due.

    Args:
        reason: As in the option ``deferred_by``, with the actor's limit where it has one; ``delay`` as it was sent.
        due: Of the first; ``None`` for those that wait for something else than a time. ``last`` of the last.
        by_limit: A limit holds them back, not their sender; ``paused`` a pause of their actor, or of a part of it.
        sent: When the first of them was sent.
        more: There are more than were looked through.
    """

    actor: str
    reason: str
    count: int
    due: datetime | None
    last: datetime
    sent: datetime
    by_limit: bool = False
    paused: bool = False
    more: bool = False


@dataclass(frozen=True, slots=True)
class YardFacts:
    """Facts of the yard.

    Args:
        rows: As the overview shows them.
        running: The longest first; ``None`` when it is not known.
        held: Queue -> its scheduled messages, by actor and reason.
        failing: Actor -> its failures, of those that hold slots of late queues and of which nearly all jobs fail.
    """

    state: YardState
    rows: tuple[Row, ...]
    running: list[Job] | None = None
    held: Mapping[str, tuple[HeldGroup, ...]] = field(default_factory=dict)
    failing: Mapping[str, AllFailing] = field(default_factory=dict)

    @property
    def queue_rows(self) -> tuple[Row, ...]:
        """The rows of queues, without those of retry lanes and shared pools."""
        return tuple(row for row in self.rows if row.kind == "queue")


def facts_of(state: YardState) -> YardFacts:
    """Return the facts of a state, with what runs and what is scheduled."""
    rows, running = tuple(yard_rows(declared_yard(), state)), running_or_none()
    return YardFacts(state, rows, running, _held(state), failures_of(rows, running or ()))


def failures_of(rows: Sequence[Row], running: Sequence[Job]) -> dict[str, AllFailing]:
    """Return the actors that hold slots of late queues and of which nearly all jobs fail; none without the database."""
    late = [row for row in rows if row.kind == "queue" and row.state.word == "Late"]
    if holders := Counter(job.actor for row in late for job in holding(row, running)):
        with suppress(DatabaseError), answers_within(FAILURES_S):
            return all_failing(actor for actor, _ in holders.most_common(MOST_HOLDERS))
    return {}


def holding(row: Row, running: Sequence[Job]) -> list[Job]:
    """Return the jobs that hold slots of a queue's pools."""
    pools = {pool.name for pool in declared_yard().pools_of(row.queue)}
    return [job for job in running if job.holder.pool in pools]


def _held(state: YardState) -> dict[str, tuple[HeldGroup, ...]]:
    if holding := [stats.queue for stats in state.queues if stats.live.scheduled]:
        with suppress(BrokerError):
            return {family.keys.queue: held_groups(family) for family in families(holding)}
    return {}


def held_groups(family: QueueOperations) -> tuple[HeldGroup, ...]:
    """Return who waits in a queue for its time, most first. Retries are not among them."""
    page = look(family, "live", "scheduled", limit=LOOKED_THROUGH)
    seen = list(page.items)
    if cut := page.cursor is not None:  # the last as well
        [count] = family.calls.look([("ZCARD", family.keys.due("live"))])
        seen += look(family, "live", "scheduled", cursor=max(count - 1, LOOKED_THROUGH), limit=1).items
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for one in seen:
        if (message := one.message) is not None and one.due_at is not None:
            reason = put_off_reason(one.due_at) or str(message.options.get("deferred_by") or AS_SENT)
            groups.setdefault((message.actor_name, reason), []).append((one.due_at, message.message_timestamp))
    return tuple(
        HeldGroup(
            actor,
            limit_words(reason, actor),
            len(times),
            due=None if reason in PUT_OFF else datetime_of(min(due for due, _ in times)),
            last=datetime_of(max(due for due, _ in times)),
            sent=datetime_of(min(sent for _, sent in times)),
            by_limit=reason.endswith("_limit") or reason in OF_PLACES,
            paused=reason == "actor_paused",
            more=cut,
        )
        for (actor, reason), times in sorted(groups.items(), key=lambda group: -len(group[1]))
    )


@dataclass(frozen=True, slots=True)
class Flood:
    """Jobs of one origin that are most of what waits in a queue.

    Args:
        count: Of ``seen`` messages that were looked at.
        owner: Of all; "" where it is not the owner that they have in common.
        actor: That of all, where they were sent by jobs of that actor or have one value of an argument.
        argument: Such as ``customer_id=7``, as a pause of the actor takes it; "" where the actor sends itself.
        place: Part of the queue in which they were seen: ``newest``, ``next``; "" for both.
    """

    count: int
    seen: int
    owner: str = ""
    actor: str = ""
    argument: str = ""
    place: str = ""

    @property
    def sends_itself(self) -> bool:
        """Whether jobs of the actor sent them."""
        return bool(self.actor) and not self.argument

    @property
    def text(self) -> str:
        """The share as pages say it: ``about 96 % of acme``, ``97 of the newest 100 are customer_id=7``."""
        if self.owner and self.place:
            return f"{self.count} of the {self.place} {self.seen} of {self.owner}"
        if self.owner:
            return f"about {self.count / self.seen * 100:.0f} % of {self.owner}"
        if self.argument:
            return f"{self.count} of the {self.place} {self.seen} are {self.argument}"
        return f"{self.actor} sends itself: {self.count} of the {self.place} {self.seen} that wait"


def flood_of(row: Row) -> Flood | None:
    """Return what floods a late queue; ``None`` where few wait, no origin has most of them, or nothing else waits."""
    waiting = row.waiting or 0
    # Where slots are free, something else keeps jobs from starting.
    if waiting < 2 * SAMPLE or row.busy * 2 < row.slots:
        return None
    try:
        [family] = families([row.queue])
        pages = [look(family, "live", "waiting", cursor=at, limit=SAMPLE) for at in (waiting - SAMPLE, 0)]
        newest, oldest = [[message for one in page.items if (message := one.message)] for page in pages]
        return _sent_by_itself(newest, row.queue) or _one_value(newest, oldest) or _one_owner(newest, oldest)
    except (ValueError, BrokerError):
        return None


_Messages = Sequence[Message[Any]]


def _sent_by_itself(newest: _Messages, queue: str) -> Flood | None:
    """Return the actor whose jobs sent most of the newest messages of the actor itself."""
    sent = [(message.actor_name, str(message.options["parent"])) for message in newest if "parent" in message.options]
    parents = records_of(list({parent for _, parent in sent}), queues=[queue])
    own = [actor for actor, parent in sent if parent in parents and parents[parent].actor == actor]
    [(actor, count)] = Counter(own).most_common(1) or [("", 0)]
    return Flood(count, len(newest), actor=actor, place="newest") if actor and count >= MOST * len(newest) else None


def sends_itself(actor: str, queue: str) -> bool:
    """Return whether most of an actor's jobs that a queue starts next, or holds for a moment, were sent by its own."""
    try:
        [family] = families([queue])
        pages = [look(family, "live", place, limit=SAMPLE) for place in ("scheduled", "waiting")]
        messages = [message for page in pages for one in page.items if (message := one.message) is not None]
        mine = [message for message in messages if message.actor_name == actor]
        return _sent_by_itself(mine, queue) is not None
    except (ValueError, BrokerError):
        return False


_NONE: Final = (0, 0, (("", ""), ""))


def _one_value(newest: _Messages, oldest: _Messages) -> Flood | None:
    """Return the value of an argument that most of the newest or of the next messages have, where others wait as well.

    Of several arguments it is the one with most values: that of a customer varies, that of a format does not.
    """
    values = [[pair for message in messages for pair in _values(message)] for messages in (newest, oldest)]
    kinds = Counter(argument for argument, _ in {*values[0], *values[1]})
    # Where jobs of others wait as well, all of one actor may have the same value: a customer's batch before them.
    fewest = 1 if len({message.actor_name for message in (*newest, *oldest)}) > 1 else 2
    for place, pairs, seen in zip(("newest", "next"), values, (len(newest), len(oldest)), strict=True):
        counts = [(kinds[pair[0]], count, pair) for pair, count in Counter(pairs).items() if kinds[pair[0]] >= fewest]
        _, count, ((actor, name), value) = max((each for each in counts if each[1] >= MOST * seen), default=_NONE)
        if count:
            return Flood(count, seen, actor=actor, argument=f"{name}={value}", place=place)
    return None


def _values(message: Message[Any]) -> list[tuple[tuple[str, str], str]]:
    """Return (actor, name) and value of each argument by which the actor can be paused; none that it hides."""
    actor = dramatiq.get_broker().actors.get(message.actor_name)
    known = signature_of(actor.fn).parameters if actor is not None else ()
    shown = shown_arguments(message.actor_name, message.args, message.kwargs)
    found = [(name, value) for name, value in shown.items() if name in known and is_plain(value)]
    return [((message.actor_name, name), shown_json(value)) for name, value in found]


def _one_owner(newest: _Messages, oldest: _Messages) -> Flood | None:
    """Return the owner of most of both, or of the newest or the next alone: what came after a flood is of others."""
    several = len({message.options.get("owner") for message in (*newest, *oldest)}) > 1
    for place, seen in (("", (*newest, *oldest)), ("newest", newest), ("next", oldest)):
        owners = Counter(str(message.options.get("owner") or "") for message in seen)
        [(owner, count)] = owners.most_common(1) or [("", 0)]
        if owner and several and count >= MOST * len(seen):
            return Flood(count, len(seen), owner=owner, place=place)
    return None
