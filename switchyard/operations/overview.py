"""Data of the overview, read once; an unavailable broker or database leaves its part empty."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import DatabaseError
from django.utils import timezone

from switchyard.alerts import queries as alerts
from switchyard.alerts.models import Alert
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import BrokerError, BrokerRefused
from switchyard.broker.health.server import ServerFinding
from switchyard.broker.interface import facilities
from switchyard.broker.topology import Pool, Yard
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.formatting import duration
from switchyard.dead_letters import queries as dead_letters
from switchyard.history.writer_state import why_missing
from switchyard.jobs.running import RunningJob
from switchyard.operations.database_deadline import answers_within
from switchyard.operations.diagnosis import Verdict, diagnose
from switchyard.operations.findings.examine import KEPT
from switchyard.operations.findings.facts import YardFacts, facts_of
from switchyard.operations.metrics_broker import YARD_STATE
from switchyard.operations.queries import PoolState, YardState
from switchyard.operations.rows import UNKNOWN, Row, yard_rows
from switchyard.operations.server_state import read_server_state
from switchyard.operations.timeouts import NoAnswer
from switchyard.operations.yard.state_words import most_held, shown_rows
from switchyard.operations.yard.svg import Drawing, draw
from switchyard.schedules import queries as schedules
from switchyard.schedules.queries import ScheduleRow

TIMEOUT_S = 2.0
DATABASE_TIMEOUT_S = 2.0
# A broker that was read before is called away once it has not answered for so long; what was read a while ago is gone.
SILENT_S, FORGOTTEN_S = 6.0, 60.0
KEPT_FOR = timedelta(hours=1)


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
    ended jobs are missing in the history; "" when none is. While the broker is away ``old_rows`` have the last figures
    that this process has read, at ``old_at``. ``quarantined`` messages are those that nobody can read.
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
    pools_known: bool
    quarantined: int | None = None
    old_rows: tuple[tuple[Row, Drawing], ...] = ()
    old_at: datetime | None = None

    @property
    def behind_s(self) -> int | None:
        """Age of the figures that the page draws; ``None`` where they are of this moment, or there are none."""
        return None if self.old_at is None else int((self.at - self.old_at).total_seconds())

    @property
    def drawn_rows(self) -> tuple[tuple[Row, Drawing], ...]:
        """The rows that the page draws."""
        return self.old_rows or self.rows

    @property
    def also(self) -> tuple[str, ...]:
        """Sentences of the overview below its verdict."""
        paused = [
            f"{row.name} ({row.missed:,} tick{'' if row.missed == 1 else 's'} missed)" for row in self.paused_schedules
        ]
        counted = "1 schedule is" if len(paused) == 1 else f"{len(paused)} schedules are"
        return (
            *self.verdict.also,
            *([f"{counted} paused: {', '.join(paused)}."] if paused else ()),
            *([f"Of the jobs, {self.unwritten}."] if self.unwritten else ()),
        )


def overview() -> Room:
    """Read the overview; waits at most 2 s for the broker, and as long for the database."""
    facts, away = FACTS.read()
    state = facts.state if facts else None
    old_rows, old_at = FACTS.old_rows() if state is None else ((), None)
    rows = shown_rows(facts) if facts else yard_rows(declared_yard(), None)
    latest: tuple[Alert, ...] | None
    try:
        with answers_within(DATABASE_TIMEOUT_S):
            open_letters = dead_letters.open_count()
            latest, paused = tuple(alerts.recent()), schedules.paused(timezone.now())
    except DatabaseError:
        open_letters, latest, paused = 0, None, []
    pools = list(state.pools.values()) if state else []
    verdict = diagnose(facts, KEPT.findings(), open_letters, away)
    told = any(found.finding.group == "history" for found in verdict.findings)
    return Room(
        verdict=verdict,
        # The slots of the actor that holds most of a late queue's slots are marked.
        rows=tuple((row, draw(row, *most_held(row, facts))) for row in rows),
        pools=tuple(_pool_row(pool, state) for pool in declared_yard().pools),
        pools_up=sum(pool.up for pool in pools),
        slots=sum(pool.slots for pool in pools),
        memory_bytes=sum(pool.memory_bytes for pool in pools),
        alerts=latest,
        paused_schedules=tuple(paused),
        at=timezone.now(),
        away=state is None,
        pools_known=state is not None and state.server.pools_known,
        quarantined=None if state is None else sum(stats.quarantined for stats in state.queues),
        running=facts.running if facts else None,
        unwritten=why_missing() if state and not away and not told else "",
        old_rows=tuple((row, draw(row)) for row in old_rows),
        old_at=old_at,
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """Facts with the yard that they are of, and the time at which they were read, by both clocks."""

    facts: YardFacts
    yard: Yard
    at: datetime
    at_s: float


class KeptFacts:
    """The facts of this process's last reading, which stand in for one that takes long: a busy machine is no fault."""

    def __init__(self) -> None:
        self._kept: _Reading | None = None

    def forget(self) -> None:
        """Forget the last reading."""
        self._kept = None

    def keep(self, facts: YardFacts) -> None:
        """Keep facts that were read now."""
        self._kept = _Reading(facts, declared_yard(), timezone.now(), time.monotonic())

    def old_rows(self) -> tuple[tuple[Row, ...], datetime | None]:
        """Return the rows of the last reading, their state unknown, and its time; none of one an hour ago."""
        kept = self._kept
        if kept is None or kept.yard != declared_yard() or timezone.now() - kept.at > KEPT_FOR:
            return (), None
        rows = yard_rows(kept.yard, kept.facts.state)
        return tuple(replace(row, state=UNKNOWN) for row in rows), kept.at

    def read(self) -> tuple[YardFacts | None, str | ServerFinding]:
        """Return the facts, and why they are not of now; ``None`` where the last ones are too old, or it is certain."""
        try:
            facts = facts_of(YARD_STATE.result(TIMEOUT_S))
        except NoAnswer:
            kept = self._kept
            if kept is None or (silent_s := time.monotonic() - kept.at_s) > FORGOTTEN_S:
                return None, f"the broker does not answer within {TIMEOUT_S:g} s"
            away = f"the broker has not answered for {duration(silent_s * 1_000)}"
            return (kept.facts if silent_s < SILENT_S else None), away
        except BrokerRefused as error:
            return None, _refusal(error)
        except BrokerError:
            absence = switchyard_settings().absence
            return None, f"the broker does not answer{f': {absence.fact}' if absence.fact else ''}"
        self.keep(facts)
        return facts, ""


FACTS = KeptFacts()


def _refusal(error: BrokerRefused) -> str | ServerFinding:
    """Return what is wrong with a server that answers with an error, such as a key that another program wrote."""
    found = facilities().records
    with contextlib.suppress(BrokerError):
        for finding in read_server_state(found.calls, found.keys).errors:
            return finding
    return f"the broker answers with an error: {error.cause.partition(' ')[0]}"


def _pool_row(pool: Pool, state: YardState | None) -> PoolRow:
    now = state.pools[pool.name] if state and state.server.pools_known else None
    counted = sorted(now.restarts.items()) if now else []
    return PoolRow(
        state=now,
        name=pool.name,
        kind=f"{pool.kind}, niced" if pool.nice else pool.kind,
        processes=now.slots // pool.slots if now and now.slots and pool.per_core else pool.children,
        slots=pool.slots,
        beat_at=datetime_of(now.beat_at) if now and now.beat_at else None,
        restarts=", ".join(f"{count} by {reason}" for reason, count in counted) or ("0" if now else "unknown"),
    )
