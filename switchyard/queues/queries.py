"""Data of a queue's page, read once; an unavailable broker or database leaves its part empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import dramatiq
from django.utils import timezone

from switchyard.broker.admin.browse import BrowsedMessage, look
from switchyard.broker.admin.purge import purges
from switchyard.broker.admin.stats import pauses_in
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.stores.job_record import Job
from switchyard.broker.topology import Queue
from switchyard.conf import declared_yard
from switchyard.console.pauses import pause_facts
from switchyard.jobs.pauses import PausedActor
from switchyard.jobs.queries import running_or_none
from switchyard.operations.findings.facts import HeldGroup, YardFacts, failures_of, held_groups
from switchyard.operations.findings.lateness import BLOCKED, LATE_WORDS
from switchyard.operations.metrics import YARD_STATE
from switchyard.operations.overview import shown_row
from switchyard.operations.queries import YardState
from switchyard.operations.rows import Row, yard_rows
from switchyard.operations.timeouts import NoAnswer
from switchyard.queues.facts import (
    EndedQueueJob,
    PurgeFacts,
    QueueLine,
    QueueView,
    SlotHolder,
    SlotPicture,
    SlotRun,
    ended_jobs,
    line_of,
    percentiles,
    picture_of,
    times_of,
)
from switchyard.queues.services import ForeignBroker, family_of

TIMEOUT_S: Final = 2.0
NEXT: Final = 10
LOOKED_THROUGH: Final = 1_000


def waiting_actors(queue: str) -> list[tuple[str, int]]:
    """Return the actors of the next waiting messages, most first; none while the broker is unavailable."""
    try:
        seen = look(family_of(queue), "live", "waiting", limit=LOOKED_THROUGH).items
    except (BrokerError, ForeignBroker):
        return []
    counts = Counter(one.message.actor_name for one in seen if one.message is not None)
    return sorted(counts.items(), key=lambda found: (-found[1], found[0]))


def view_of(queue: Queue) -> QueueView:
    """Read what a queue's page shows; waits at most 2 s for the yard's state."""
    state = yard_state()
    row = next(row for row in yard_rows(declared_yard(), state) if row.name == queue.name)
    stats = None if state is None else next((each for each in state.queues if each.queue == queue.name), None)
    first, held, aside, paused = _of_broker(queue) if stats is not None else ((), (), (), ())
    running = running_or_none() if state is not None else None
    if state is not None:
        failing = failures_of((row,), running or ())
        row = shown_row(row, YardFacts(state, (row,), running, {queue.name: held}, failing))
    pools = tuple(pool.name for pool in declared_yard().pools_of(queue.name))
    ended = ended_jobs(queue.name)
    waits, dones = times_of(ended or ())
    holders = None if running is None else holders_of(queue.name, pools, running)
    return QueueView(
        queue=queue,
        row=row,
        stats=stats,
        pause=pause_facts(stats.pause) if stats is not None and stats.pause is not None else None,
        paused_actors=paused,
        rates=None if state is None else state.rates.get(queue.name),
        holders=holders,
        running=None if running is None else [job for job in running if job.queue == queue.name],
        next=first,
        held=held,
        waits=waits,
        dones=dones,
        history=ended is not None,
        purges=aside,
        pools=pools,
        at=timezone.now(),
        picture=_picture(queue, row, holders, running or (), ended or ()),
        change=_change(queue, row, holders, ended or ()),
        node=_place(queue),
    )


def _place(queue: Queue) -> str:
    try:
        family = family_of(queue.name)
        return family.calls.place_of(family.keys.bodies)
    except (BrokerError, ForeignBroker):
        return ""


def yard_state() -> YardState | None:
    """Return the state of the yard, or ``None`` while the broker is unavailable."""
    try:
        return YARD_STATE.result(TIMEOUT_S)
    except (NoAnswer, BrokerError):
        return None


_OfBroker = tuple[tuple[BrowsedMessage, ...], tuple[HeldGroup, ...], tuple[PurgeFacts, ...], tuple[PausedActor, ...]]


def _of_broker(queue: Queue) -> _OfBroker:
    try:
        family = family_of(queue.name)
        waiting = look(family, "live", "waiting", limit=NEXT)
        aside = tuple(map(PurgeFacts, purges(family)))
        held = held_groups(family)
        return tuple(waiting.items), held, aside, _paused_actors(queue, family, held)
    except (BrokerError, LookupError, ForeignBroker):
        return (), (), (), ()


def _paused_actors(queue: Queue, family: QueueOperations, held: Sequence[HeldGroup]) -> tuple[PausedActor, ...]:
    actors = dramatiq.get_broker().actors
    here = {name for name, actor in actors.items() if actor.queue_name == queue.name}
    here |= {group.actor for group in held if group.due is None}
    found = pauses_in([family])
    return tuple(PausedActor(each) for each in found if each.is_open or each.actor in here)


def holders_of(queue: str, pools: Sequence[str], running: Iterable[Job]) -> tuple[SlotHolder, ...]:
    """Return who holds the slots of some pools, most first; then who runs jobs of the queue elsewhere.

    Args:
        running: The longest first. A job of the queue counts whatever its worker's name is.
    """
    by_actor: dict[str, list[Job]] = {}
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
            here=sum(job.holder.pool in pools for job in jobs),
        )
        for actor, jobs in by_actor.items()
    ]
    return tuple(sorted(found, key=lambda holder: (-holder.here, -holder.count, holder.actor)))


def _picture(
    queue: Queue,
    row: Row,
    holders: Sequence[SlotHolder] | None,
    running: Iterable[Job],
    ended: Iterable[EndedQueueJob],
) -> SlotPicture | None:
    """Return what held the slots: the queue's jobs, and those of other queues that run in its pools now."""
    if holders is None:
        return None
    pools = {pool.name for pool in declared_yard().pools_of(queue.name)}
    runs = [
        SlotRun(job.actor, job.started_at, None)
        for job in running
        if job.started_at is not None and (job.holder.pool in pools or job.queue == queue.name)
    ]
    runs += [SlotRun(job.actor, job.started_at, job.finished_at) for job in ended if job.started_at is not None]
    late = row.state.word in LATE_WORDS
    return picture_of(runs, row.slots, now_ms(), late_after_ms=queue.objective_ms if late else None)


def _change(
    queue: Queue, row: Row, holders: Sequence[SlotHolder] | None, ended: Iterable[EndedQueueJob]
) -> QueueLine | None:
    if row.state.word != BLOCKED or not holders:
        return None
    first = holders[0]
    lately = percentiles([job.run_ms for job in ended if job.actor == first.actor and job.run_ms is not None])
    return line_of(queue, first.actor, max(first.longest.run_ms or 0, lately.p95 if lately else 0))
