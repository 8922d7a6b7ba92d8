"""Data of a queue's page, read once; an unavailable broker or database leaves its part empty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db import DatabaseError
from django.utils import timezone

from apps.platform.conf import declared_yard
from apps.platform.history.models import JobRow
from apps.platform.jobs.running import RunningJob, running_or_none
from apps.platform.operations.findings.facts import HeldGroup, YardFacts, held_groups
from apps.platform.operations.metrics_broker import YARD_STATE
from apps.platform.operations.queries import YardState
from apps.platform.operations.rates import Rates
from apps.platform.operations.rows import Row, yard_rows
from apps.platform.operations.state_words import shown_row
from apps.platform.operations.timeouts import NoAnswer
from apps.platform.queues.errors import ForeignBroker
from apps.platform.queues.services import family_of
from broker.admin.browse import BrowsedMessage, look
from broker.admin.purge import Purge, purges
from broker.clock import now_ms
from broker.errors import BrokerError
from broker.shapes import QueuePause, QueueStats
from broker.topology import Queue

TIMEOUT_S: Final = 2.0
NEXT: Final = 10
LOOKED_THROUGH: Final = 1_000
RECENT_MS: Final = 15 * 60_000
MOST_ENDED: Final = 1_000


@dataclass(frozen=True, slots=True)
class WaitTimes:
    """Times of the queue's last jobs that ended, in ms.

    Args:
        counted: Number of jobs.
        over_ms: The oldest of them ended so long ago.
    """

    counted: int
    over_ms: int
    p50: int
    p95: int
    p99: int


@dataclass(frozen=True, slots=True)
class SlotHolder:
    """An actor that runs in slots of the queue's pools, for this queue or another one that they serve.

    Args:
        pools: Of the slots; those of a pool that serves only the queue's retries are among them.
        longest: The job that has run for longest.
    """

    actor: str
    count: int
    queues: tuple[str, ...]
    pools: tuple[str, ...]
    longest: RunningJob


@dataclass(frozen=True, slots=True)
class PauseFacts:
    """A pause with its times."""

    since: datetime | None
    until: datetime | None
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class PurgeFacts:
    """A purge whose messages are set aside, with its times.

    Args:
        can_undo: It is not being dropped.
    """

    id: str
    count: int
    at: datetime
    until: datetime
    by: str
    reason: str
    can_undo: bool
    undoing: bool


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue at one moment.

    Args:
        stats, row: ``None`` and of unknown state while the broker is unavailable.
        holders, running: ``None`` while the broker is unavailable.
        next, held, purges: Empty where the broker is not Switchyard's own.
        waits, dones: WaitTimes from being ready to the start, and to the end; ``None`` without recent jobs.
        history: Whether the database answered.
    """

    queue: Queue
    row: Row
    stats: QueueStats | None
    pause: PauseFacts | None
    rates: Rates | None
    holders: tuple[SlotHolder, ...] | None
    running: list[RunningJob] | None
    next: tuple[BrowsedMessage, ...]
    held: tuple[HeldGroup, ...]
    waits: WaitTimes | None
    dones: WaitTimes | None
    history: bool
    purges: tuple[PurgeFacts, ...]
    pools: tuple[str, ...]
    at: datetime

    @property
    def held_counted(self) -> int:
        """Held messages that are counted by actor: the next to be due."""
        return sum(group.count for group in self.held)

    @property
    def depth(self) -> int:
        """Messages that a purge sets aside: waiting and scheduled ones, of every lane."""
        return 0 if self.stats is None else waiting_and_scheduled(self.stats)


def waiting_actors(queue: str) -> dict[str, int]:
    """Return how many of the next waiting messages are of which actor; none while the broker is unavailable."""
    counts: dict[str, int] = {}
    try:
        for one in look(family_of(queue), "live", "waiting", limit=LOOKED_THROUGH).items:
            if one.message is not None:
                counts[one.message.actor_name] = counts.get(one.message.actor_name, 0) + 1
    except (BrokerError, ForeignBroker):
        return {}
    return counts


def waiting_and_scheduled(stats: QueueStats) -> int:
    """Return how many messages of a family wait or are scheduled."""
    return sum(lane.waiting + lane.scheduled for lane in (stats.live, stats.retry))


def view_of(queue: Queue) -> QueueView:
    """Read what a queue's page shows; waits at most 2 s for the yard's state."""
    state = yard_state()
    row = next(row for row in yard_rows(declared_yard(), state) if row.name == queue.name)
    stats = None if state is None else next(stats for stats in state.queues if stats.queue == queue.name)
    first, held, aside = _of_broker(queue) if state is not None else ((), (), ())
    running = running_or_none() if state is not None else None
    if state is not None:
        row = shown_row(row, YardFacts(state, (row,), running, {queue.name: held}))
    pools = tuple(pool.name for pool in declared_yard().pools_of(queue.name))
    waits, dones, answered = _of_history(queue.name)
    return QueueView(
        queue=queue,
        row=row,
        stats=stats,
        pause=pause_facts(stats.pause) if stats is not None and stats.pause is not None else None,
        rates=None if state is None else state.rates.get(queue.name),
        holders=None if running is None else holders_of(queue.name, pools, running),
        running=None if running is None else [job for job in running if job.queue == queue.name],
        next=first,
        held=held,
        waits=waits,
        dones=dones,
        history=answered,
        purges=aside,
        pools=pools,
        at=timezone.now(),
    )


def yard_state() -> YardState | None:
    """Return the state of the yard, or ``None`` while the broker is unavailable."""
    try:
        return YARD_STATE.result(TIMEOUT_S)
    except (NoAnswer, BrokerError):
        return None


def pause_facts(pause: QueuePause) -> PauseFacts:
    """Return a pause with its times."""
    return PauseFacts(_moment(pause.since), _moment(pause.until), pause.by, pause.reason)


_OfBroker = tuple[tuple[BrowsedMessage, ...], tuple[HeldGroup, ...], tuple[PurgeFacts, ...]]


def _of_broker(queue: Queue) -> _OfBroker:
    try:
        family = family_of(queue.name)
        waiting = look(family, "live", "waiting", limit=NEXT)
        aside = tuple(map(_purge_facts, purges(family)))
        return tuple(waiting.items), held_groups(family), aside
    except (BrokerError, LookupError, ForeignBroker):
        return (), (), ()


def _purge_facts(purge: Purge) -> PurgeFacts:
    at, until = (datetime.fromtimestamp(ms / 1_000, UTC) for ms in (purge.at, purge.until))
    undoing = purge.claim == "undo"
    return PurgeFacts(purge.id, purge.count, at, until, purge.by, purge.reason, purge.claim == "", undoing)


def holders_of(queue: str, pools: Sequence[str], running: Iterable[RunningJob]) -> tuple[SlotHolder, ...]:
    """Return who holds the slots of some pools, most first.

    Args:
        running: The longest first. A job of the queue counts whatever its worker's name is.
    """
    by_actor: dict[str, list[RunningJob]] = {}
    for job in running:
        if job.holder.pool in pools or job.queue == queue:
            by_actor.setdefault(job.actor, []).append(job)
    found = [
        SlotHolder(
            actor,
            len(jobs),
            queues=tuple(sorted({job.queue for job in jobs})),
            pools=tuple(sorted({job.holder.pool or job.holder.name for job in jobs})),
            longest=jobs[0],
        )
        for actor, jobs in by_actor.items()
    ]
    return tuple(sorted(found, key=lambda holder: (-holder.count, holder.actor)))


def _of_history(queue: str) -> tuple[WaitTimes | None, WaitTimes | None, bool]:
    now = now_ms()
    recent = JobRow.objects.filter(queue=queue, finished_at__gte=now - RECENT_MS).order_by("-finished_at", "-id")
    try:
        found = list(recent.values_list("finished_at", "wait_ms", "run_ms")[:MOST_ENDED])
    except DatabaseError:
        return None, None, False
    since_ms = now - min((row[0] for row in found), default=now)
    waits = percentiles([wait for _, wait, _ in found if wait is not None], over_ms=since_ms)
    both = [wait + run for _, wait, run in found if wait is not None and run is not None]
    return waits, percentiles(both, over_ms=since_ms), True


def percentiles(values: Sequence[int], *, over_ms: int) -> WaitTimes | None:
    """Return the percentiles of some times; ``None`` when there are none."""
    if not values:
        return None
    ordered = sorted(values)
    at: list[Any] = [ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (0.5, 0.95, 0.99)]
    return WaitTimes(len(ordered), over_ms, *at)


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1_000, UTC)
