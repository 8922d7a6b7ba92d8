"""Data of the overview, read once; an unavailable broker or database leaves its part empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import DatabaseError
from django.utils import timezone

from apps.platform.alerts import queries as alerts
from apps.platform.alerts.models import Alert
from apps.platform.conf import declared_yard
from apps.platform.dead_letters import queries as dead_letters
from apps.platform.history.writer_state import why_missing
from apps.platform.jobs.running import RunningJob, running_or_none
from apps.platform.operations.diagnosis import Verdict, diagnose
from apps.platform.operations.metrics_broker import YARD_STATE
from apps.platform.operations.queries import PoolState, YardState
from apps.platform.operations.rows import Row, yard_rows
from apps.platform.operations.svg import Drawing, draw
from apps.platform.operations.timeouts import NoAnswer
from apps.platform.schedules import queries as schedules
from apps.platform.schedules.queries import ScheduleRow
from broker.errors import BrokerError
from broker.topology import Yard

TIMEOUT_S = 2.0
RECENT = timedelta(minutes=10)
# Actors that are named; the others are counted together.
NAMED = 2


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One line of the table of pools."""

    state: PoolState | None
    name: str
    kind: str
    processes: int
    slots: int
    beat_at: datetime | None
    restarts: str


@dataclass(frozen=True, slots=True)
class Room:
    """The overview at one moment.

    ``alerts`` is ``None`` while the database is unavailable, ``running`` while the broker is. ``unwritten`` says why
    ended jobs are missing in the history; "" when none is.
    """

    verdict: Verdict
    rows: tuple[tuple[Row, Drawing], ...]
    pools: tuple[PoolRow, ...]
    pools_up: int
    slots: int
    memory_bytes: int
    alerts: tuple[Alert, ...] | None
    paused_schedules: tuple[ScheduleRow, ...]
    at: datetime
    away: bool
    running: list[RunningJob] | None
    unwritten: str


def overview() -> Room:
    """Read the overview; waits at most 2 s for the broker."""
    state = _state()
    rows = yard_rows(declared_yard(), state)
    recent: list[dead_letters.LetterGroup] | None
    latest: tuple[Alert, ...] | None
    try:
        recent, open_letters = dead_letters.groups(since=timezone.now() - RECENT), dead_letters.open_count()
        latest, paused = tuple(alerts.recent()), schedules.paused(timezone.now())
    except DatabaseError:
        recent, open_letters, latest, paused = None, 0, None, []
    pools = list(state.pools.values()) if state else []
    running = running_or_none() if state else None
    return Room(
        verdict=diagnose(rows, state, recent, open_letters, slot_holders(declared_yard(), running or ())),
        rows=tuple((row, draw(row)) for row in rows),
        pools=tuple(_pool_row(pool.name, state) for pool in declared_yard().pools),
        pools_up=sum(pool.up for pool in pools),
        slots=sum(pool.slots for pool in pools),
        memory_bytes=sum(pool.memory_bytes for pool in pools),
        alerts=latest,
        paused_schedules=tuple(paused),
        at=timezone.now(),
        away=state is None,
        running=running,
        unwritten=why_missing() if state else "",
    )


def slot_holders(yard: Yard, running: Iterable[RunningJob]) -> dict[str, str]:
    """Return for each queue in whose pools something runs which actors run there: ``6 × export, 2 × others``."""
    by_pool: dict[str, Counter[str]] = {}
    for job in running:
        by_pool.setdefault(job.holder.pool, Counter())[job.actor] += 1
    found = {}
    for queue in yard.queues:
        counts = sum((by_pool.get(pool.name, Counter()) for pool in yard.pools_of(queue.name)), Counter[str]())
        if counts:
            found[queue.name] = _words(counts)
    return found


def _words(counts: Counter[str]) -> str:
    first = counts.most_common(NAMED)
    others = counts.total() - sum(count for _, count in first)
    named = [f"{count:,} × {actor}" for actor, count in first]
    return ", ".join([*named, f"{others:,} × others"] if others else named)


def _state() -> YardState | None:
    try:
        return YARD_STATE.result(TIMEOUT_S)
    except (NoAnswer, BrokerError):
        return None


def _pool_row(name: str, state: YardState | None) -> PoolRow:
    pool = declared_yard().pool(name)
    now = state.pools[name] if state else None
    counted = sorted(now.restarts.items()) if now else []
    return PoolRow(
        state=now,
        name=name,
        kind=f"{pool.kind}, niced" if pool.nice else pool.kind,
        processes=now.slots // pool.slots if now and now.slots and pool.per_core else pool.children,
        slots=pool.slots,
        beat_at=datetime.fromtimestamp(now.beat_at / 1_000, timezone.get_default_timezone())
        if now and now.beat_at
        else None,
        restarts=", ".join(f"{count} by {reason}" for reason, count in counted) or "0",
    )
