"""State of the yard: queues and their lanes, pools and their slots."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.shapes import QueueStats
from switchyard.broker.stores.pool_reports import (
    QUIETED,
    Instruction,
    PoolReport,
    PoolReports,
    SilentChild,
    SilentSupervisor,
)
from switchyard.broker.topology import Pool
from switchyard.conf import declared_yard
from switchyard.long_running import anyone_leads
from switchyard.operations.supervisors import TAKES_WORK, ServerState, read_broker_state

WINDOW_S, LATELY_S, SHORTEST_S = 60.0, 10.0, 1.0


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """Figures of a queue family at one moment: tokens issued so far, messages there, messages leased."""

    at_s: float
    issued: int
    there: int
    leased: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Attempts a second over ``seconds``. A retry arrives, starts and ends like a new message."""

    arrivals: float
    starts: float
    ends: float
    seconds: float


_readings: dict[str, deque[QueueSnapshot]] = {}
_lock = threading.Lock()


def measure(stats: Iterable[QueueStats]) -> dict[str, Rates]:
    """Note the figures of queues, and return the rates since the oldest that this process noted in the last minute.

    A queue is missing after its first figures, within a second of them, and where its broker counts no tokens.
    """
    now_s, found = time.monotonic(), {}
    for one in stats:
        if one.issued is None:
            continue
        there, leased = one.live.total + one.retry.total, one.live.running + one.retry.running
        if rates := note(one.queue, QueueSnapshot(now_s, one.issued, there, leased)):
            found[one.queue] = rates
    return found


def note(queue: str, now: QueueSnapshot) -> Rates | None:
    """Keep a reading, and return the rates since the oldest one that is kept."""
    with _lock:
        kept = _readings.setdefault(queue, deque(maxlen=int(WINDOW_S)))
        while kept and (now.at_s - kept[0].at_s > WINDOW_S or kept[0].issued > now.issued):
            kept.popleft()
        first = kept[0] if kept else None
        if not kept or now.at_s - kept[-1].at_s >= SHORTEST_S:
            kept.append(now)
    return None if first is None or now.at_s - first.at_s < SHORTEST_S else between(first, now)


def lately(queue: str) -> Rates | None:
    """Return the rates of the last ten seconds, by this process's readings; ``None`` without two of them."""
    since_s = time.monotonic() - LATELY_S
    with _lock:
        recent = [reading for reading in _readings.get(queue, ()) if reading.at_s >= since_s]
    return between(recent[0], recent[-1]) if len(recent) > 1 else None


def forget() -> None:
    with _lock:
        _readings.clear()


def between(first: QueueSnapshot, last: QueueSnapshot) -> Rates:
    """Return the rates between two readings. A purge takes messages away that never started: nothing ends below 0."""
    seconds, starts = last.at_s - first.at_s, last.issued - first.issued
    ends = max(starts - (last.leased - first.leased), 0)
    arrivals = max(last.there - first.there + ends, 0)
    return Rates(arrivals / seconds, starts / seconds, ends / seconds, seconds)


# A supervisor that could not report tries again after 5 s.
GRACE_S = 8.0


@dataclass(frozen=True, slots=True)
class PoolState:
    """One pool of the yard over all hosts.

    Args:
        up: A supervisor that has been ready reports.
        ready: A child accepts work now.
        slots: Of a quieted supervisor those that are busy still count.
        silent: Supervisors that were killed, stopped or cut off within the last hour.
        supervisors: Number of those that are up; ``quieted`` of them take no new work, by ``instructions``.
        reports: Of its supervisors.
    """

    pool: Pool
    up: bool
    ready: bool
    state: str
    slots: int
    busy: int
    memory_bytes: int
    beat_at: int | None
    restarts: dict[str, int]
    silent: tuple[SilentSupervisor, ...] = ()
    supervisors: int = 1
    quieted: int = 0
    instructions: tuple[Instruction, ...] = ()
    reports: tuple[PoolReport, ...] = ()

    @property
    def silent_children(self) -> list[tuple[PoolReport, SilentChild]]:
        """Children that answer nothing while they run something, that for the longest time first."""
        found = [(report, child) for report in self.reports for child in report.silent if child.runs]
        return sorted(found, key=lambda pair: -pair[1].silent_ms)

    @property
    def idle(self) -> int:
        """Slots that could run something: of a child that answers nothing none can."""
        stuck = sum(self.pool.slots - len(child.runs) for report in self.reports for child in report.silent)
        return max(self.slots - self.busy - stuck, 0)

    @property
    def takes_work(self) -> bool:
        """Whether a supervisor is up that is not quieted."""
        return self.up and self.quieted < self.supervisors


@dataclass(frozen=True, slots=True)
class YardState:
    """State of the whole yard in the broker at one moment.

    Args:
        queues: Without those whose server does not answer: ``server.away.queues``.
        pools: As if none were up while their reports are unknown: ``server.pools_known``.
        scheduler_up: Also while that is unknown.
        hosts: Hosts from which a supervisor reports.
        returned_s: Seconds since the broker answers again, while pools may not have reported since; else ``None``.
        rates: By queue, where this process has read the state before.
    """

    queues: tuple[QueueStats, ...]
    pools: dict[str, PoolState]
    scheduler_up: bool
    server: ServerState = TAKES_WORK
    returned_s: float | None = None
    hosts: frozenset[str] = frozenset()
    rates: Mapping[str, Rates] = field(default_factory=dict)


# When this process last saw no answer, or a refusal, and the first answer after it, by the monotonic clock. A process
# that looks seldom does not know when the broker came back.
_missed: dict[str, float] = {}
KNOWN_S = 60.0


def _miss() -> None:
    _missed.clear()
    _missed["broker"] = time.monotonic()


# A report lasts 15 s; the clocks of two hosts may differ by a little.
LEAST_SILENT_MS = 10_000


def yard_state() -> YardState:
    try:
        yard, found = declared_yard(), facilities()
        server = read_broker_state(found)
        there = [queue.name for queue in yard.queues if queue.name not in server.away.queues]
        stats = tuple(map(found.transport.stats, there))
        if found.clock is not None:  # the server answers
            found.clock.compare()
        reports, silent = supervisors_of(found.pools, now_ms()) if server.pools_known else ([], [])
        scheduler_up = not server.scheduler_known or anyone_leads(found.records.calls, found.records.keys)
        quieted = found.pools.read_quieted(reports)
    except BrokerError:
        _miss()
        raise
    pools = {pool.name: pool_state(pool, reports, silent, quieted) for pool in yard.pools}
    hosts = frozenset(report.host for report in reports)
    return YardState(stats, pools, scheduler_up, server, _returned_s(server), hosts, measure(stats))


def supervisors_of(pools: PoolReports, now: int) -> tuple[list[PoolReport], list[SilentSupervisor]]:
    """Return the reports, and the supervisors that were killed, stopped or cut off within the last hour.

    Beats are read first: a supervisor that reports between both reads is not silent, nor is one that ends in order.
    """
    beats = pools.read_beats(now)
    reports = pools.read_all()
    live = {report.member for report in reports}
    return reports, [one for one in beats if one.member not in live and now - one.beat_at >= LEAST_SILENT_MS]


def _returned_s(server: ServerState) -> float | None:
    if server.refusal:  # reports expire, which cannot be written
        _miss()
        return None
    since_s, now_s = [GRACE_S if server.uptime_s is None else float(server.uptime_s)], time.monotonic()
    if (back_s := _missed.get("broker")) is not None and _missed.setdefault("back", now_s) - back_s <= KNOWN_S:
        since_s.append(now_s - _missed["back"])
    least = min(since_s)
    return least if least < GRACE_S else None


def queues_json(state: YardState) -> list[dict[str, Any]]:
    """Return every queue with its retry lane, dead list and slots, in the order of the yard.

    The shape is that of the API, and of ``switchyard queues --json``. ``depth`` counts the waiting messages of the
    queue itself, ``retrying`` those of its retry lane in any state, ``parked`` those of both.
    """
    return [_queue_json(stats, state) for stats in state.queues]


def _queue_json(stats: QueueStats, state: YardState) -> dict[str, Any]:
    queue, pause = declared_yard().queue_of(stats.queue), stats.pause
    pools = [state.pools[pool.name] for pool in declared_yard().pools_of(stats.queue)]
    unfinished_ms = stats.oldest_unfinished_age_ms if queue.done_objective_ms is not None else None
    rates, names = state.rates.get(stats.queue), ("arrivals", "starts", "ends")
    return {
        "queue": stats.queue,
        "depth": stats.live.waiting,
        "scheduled": stats.live.scheduled,
        "parked": stats.parked,
        "running": stats.live.running,
        "retrying": stats.retry.total,
        "dead": stats.dead,
        "quarantined": stats.quarantined,
        **{f"{name}_per_second": rates and round(getattr(rates, name), 2) for name in names},
        "oldest_age_seconds": _seconds(stats.live.oldest_age_ms),
        "objective_seconds": _seconds(queue.objective_ms),
        "done_objective_seconds": _seconds(queue.done_objective_ms),
        "oldest_unfinished_age_seconds": _seconds(unfinished_ms),
        "paused": stats.paused,
        "pause": pause
        and {"since": _moment(pause.since), "until": _moment(pause.until), "by": pause.by, "reason": pause.reason},
        "pools": [pool.pool.name for pool in pools],
        "pools_up": sum(pool.up for pool in pools),
        "slots": sum(pool.slots for pool in pools),
        "slots_busy": sum(pool.busy for pool in pools),
    }


def pool_state(
    pool: Pool,
    reports: Sequence[PoolReport],
    silent: Sequence[SilentSupervisor],
    instructions: Mapping[str, Instruction],
) -> PoolState:
    """Return a pool's state from all supervisors' reports, and by member the instructions that quiet them."""
    mine = [report for report in reports if report.pool == pool.name]
    up = [report for report in mine if report.state != "starting"]
    quieted = [report for report in up if report.state == QUIETED]
    taking = [report for report in up if report.state != QUIETED]
    restarts: Counter[str] = Counter()
    for report in mine:
        restarts.update(report.restarts)
    return PoolState(
        pool=pool,
        up=bool(up),
        ready=any(child.get("ready") for report in taking if report.state != "paused" for child in report.children),
        state=next((report.state for report in (*taking, *up, *mine)), "down"),
        slots=sum(report.slots for report in taking) + sum(report.busy for report in quieted),
        busy=sum(report.busy for report in up),
        memory_bytes=sum(int(child.get("rss_bytes", 0)) for report in mine for child in report.children),
        beat_at=max((report.beat_at for report in mine), default=None),
        restarts=dict(restarts),
        silent=tuple(one for one in silent if one.pool == pool.name),
        supervisors=len(up),
        quieted=len(quieted),
        instructions=tuple(found for each in quieted if (found := instructions.get(each.member))),
        reports=tuple(mine),
    )


def _moment(ms: int | None) -> str | None:
    return None if ms is None else datetime_of(ms).isoformat(timespec="microseconds")


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1_000
