"""Data of a queue's page, read once, with their sentences; an unavailable broker or database leaves its part empty."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import dramatiq
from django.db import DatabaseError
from django.utils import timezone

from switchyard.broker.admin.browse import SeenMessage, look, pauses_in
from switchyard.broker.admin.purge import Purge, purges
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.shapes import ActorPause, QueueStats
from switchyard.broker.stores.job_record import Job
from switchyard.broker.topology import Queue
from switchyard.conf import declared_yard
from switchyard.console.formatting import (
    ago,
    counted,
    duration,
    jobs_text,
    pause_facts,
    promise,
    retries_text,
    whole_duration,
)
from switchyard.console.room_view import NODE_SWITCHED_OFF, SWITCHED_OFF
from switchyard.history.models import JobRow
from switchyard.jobs.queries import running_or_none
from switchyard.middleware.errors import place_of
from switchyard.operations.findings.facts import HeldGroup, YardFacts, failures_of, held_groups
from switchyard.operations.findings.lateness import BLOCKED, FAILING, HANGS, LATE_WORDS, none_late, slower_queue
from switchyard.operations.metrics import YARD_STATE
from switchyard.operations.overview import shown_row
from switchyard.operations.queries import YardState
from switchyard.operations.rows import AWAY, QUIETED, Row, yard_rows
from switchyard.operations.timeouts import NoAnswer
from switchyard.queues.services import ForeignBroker, family_of

SPAN_MS: Final = 4 * 60_000
# A queue with many short jobs is drawn over a shorter time, so that a page that is polled stays small.
MOST_BLOCKS: Final = 300
MOST_SLOTS: Final = 16
LEAST_SPAN_MS: Final = 5_000
WIDTH, SLOT_HEIGHT = 1_000, 26
LEAST, LETTER, MARKS = 2, 7, 4


@dataclass(frozen=True, slots=True)
class SlotRun:
    """A job in a slot. Times in ms since the epoch; ``ended_at`` is ``None`` while it runs."""

    actor: str
    started_at: int
    ended_at: int | None


def picture_of(runs: Iterable[SlotRun], slots: int, now: int, *, late_after_ms: int | None) -> dict[str, Any] | None:
    """Return what the template of the picture draws, or ``None`` where nothing ran.

    Args:
        runs: In any order.
        slots: Lines that are drawn, at most ``MOST_SLOTS``.
        late_after_ms: Promise of a queue that is late now: longer runs are marked.
    """
    all_runs = sorted(runs, key=lambda run: now if run.ended_at is None else run.ended_at, reverse=True)
    found = all_runs[:MOST_BLOCKS]
    began = max(now - SPAN_MS, min((run.started_at for run in found), default=now) - LEAST_SPAN_MS)
    if len(all_runs) > len(found):
        ends = [run.ended_at for run in found if run.ended_at is not None]
        began = min(max(began, min(ends, default=began)), now - LEAST_SPAN_MS)
    drawn = min(max(slots, 1), MOST_SLOTS)
    blocks = tuple(_blocks(found, drawn, began, now, late_after_ms))
    if not blocks:
        return None
    step = (now - began) / MARKS
    marks = tuple(
        (number * WIDTH / MARKS, f"{datetime_of(int(began + number * step)):%H:%M:%S}") for number in range(MARKS + 1)
    )
    return {
        "blocks": blocks,
        "slots": drawn,
        "lines": [(number * SLOT_HEIGHT, number + 1) for number in range(drawn)],
        "marks": marks,
        "span": duration(now - began),
        "height": drawn * SLOT_HEIGHT,
        "has_long": any(block["kind"] == "bad" for block in blocks),
    }


def _blocks(
    runs: Iterable[SlotRun], slots: int, began: int, now: int, late_after_ms: int | None
) -> Iterator[dict[str, Any]]:
    """Yield the blocks, each on the first line that is free at its start; what finds none is left out."""
    free_at = [0] * slots
    scale = WIDTH / (now - began)
    for run in sorted(runs, key=lambda run: run.started_at):
        end = now if run.ended_at is None else run.ended_at
        if end < began:
            continue
        if (slot := next((number for number, at in enumerate(free_at) if at <= run.started_at), None)) is None:
            continue
        free_at[slot] = max(end, run.started_at + 1)
        start = max(run.started_at, began)
        width = max((end - start) * scale, LEAST)
        took = max(end - run.started_at, 0)
        is_long = late_after_ms is not None and took > late_after_ms
        kind = "bad" if is_long else "live" if run.ended_at is None else "ok"
        so_far = " so far" if run.ended_at is None else ""
        x = min((start - began) * scale, WIDTH - width)
        yield {
            "x": round(x, 1),
            "y": slot * SLOT_HEIGHT,
            "width": round(width, 1),
            "kind": kind,  # the class in the style sheet
            "label": run.actor if len(run.actor) * LETTER + 16 < width else "",
            "label_x": round(x + 8, 1),
            "hatch_x": round(x + width - 9, 1) if is_long and width > 12 else None,
            "title": f"{run.actor}, {duration(took)}{so_far}",
        }


def line_of(queue: Queue, actor: str, longest_ms: int) -> dict[str, Any] | None:
    """Return the change of ``queue_name`` that fits an actor's longest run, with the promise of the queue after it.

    ``None`` for another queue's actor, and where none fits.
    """
    found = dramatiq.get_broker().actors.get(actor)
    best = slower_queue(queue, longest_ms)
    if found is None or found.queue_name != queue.name or best is None:
        return None
    promised = promise(best.objective_ms, best.done_objective_ms)
    return {
        "actor": actor, "place": place_of(found.fn), "took_ms": longest_ms, "before": queue.name, "after": best.name,
        "promise": promised,
    }  # fmt: skip


MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class SlotHolder:
    """An actor that runs in slots of the queue's pools, those of its retries included, for any queue that they serve.

    ``longest`` is the job that has run for longest; ``here`` counts those in the queue's own pools.
    """

    actor: str
    count: int
    queues: tuple[str, ...]
    pools: tuple[str, ...]
    longest: Job
    here: int

    def holding(self, slots: int) -> str:
        """Return what the actor does, after its name: ``holds 4 of 8 slots, its longest job for 3.2 s``."""
        ran_ms, elsewhere = self.longest.run_ms, self.count - self.here
        longest = "" if ran_ms is None else f", its longest job for {duration(ran_ms)}"
        beside = f" and {elsewhere:,} of other pools" if elsewhere else ""
        return f"holds {self.here:,} of {slots:,} slots{beside}{longest}"


def purge_facts(purge: Purge) -> dict[str, Any]:
    """Return a purge whose messages are set aside: who did it, when and why, and what becomes of them, as sentences.

    While they are not being dropped it can be undone.
    """
    reason = f" Reason: {purge.reason}." if purge.reason else ""
    end = f"The scheduler drops them after {datetime_of(purge.until):%H:%M:%S} UTC."
    if purge.claim:
        end = "They are being put back." if purge.claim == "undo" else "They are being dropped."
    aside = f"{counted(purge.count, 'message')} set aside {ago(datetime_of(purge.at))} by {purge.by}.{reason}"
    return {"purge": purge, "can_undo": not purge.claim, "sentence": aside, "end": end}


def waiting_and_scheduled(stats: QueueStats) -> int:
    """Return how many messages of a family wait or are scheduled."""
    return sum(lane.waiting + lane.scheduled for lane in (stats.live, stats.retry))


def all_queues_sentence(rows: Sequence[Row], *, away: bool) -> str:
    """Return the first sentence of the list of queues."""
    if away:
        return "What waits is unknown"
    named = [f"{row.name} is {row.state.word.lower()}" for row in rows if row.state.level in ("warn", "bad")]
    if not named:
        waiting = sum(row.waiting or 0 for row in rows)
        counted = jobs_text(waiting) if waiting else "nothing waits"
        return f"{none_late()}; {counted}"
    more = f", and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return ", ".join(named[:MOST_NAMED]).replace("is no pool", "has no pool") + more


RECENT_MS: Final = 15 * 60_000
MOST_ENDED: Final = 1_000


class EndedQueueJob(NamedTuple):
    """One row of the history, with the columns of a queue's page."""

    wait_ms: int | None
    run_ms: int | None
    finished_at: int
    actor: str
    started_at: int | None


def ended_jobs(queue: str) -> list[EndedQueueJob] | None:
    """Return the queue's jobs that ended lately, the newest first; ``None`` while the database is unavailable."""
    rows = JobRow.objects.filter(queue=queue, finished_at__gte=now_ms() - RECENT_MS).order_by("-finished_at", "-id")
    try:
        return [EndedQueueJob(*row) for row in rows.values_list(*EndedQueueJob.__annotations__)[:MOST_ENDED]]
    except DatabaseError:
        return None


def times_of(jobs: Sequence[EndedQueueJob]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the times from being ready to the start, and to the end."""
    over_ms = now_ms() - min((job.finished_at for job in jobs), default=now_ms())
    waits = [job.wait_ms for job in jobs if job.wait_ms is not None]
    both = [job.wait_ms + job.run_ms for job in jobs if job.wait_ms is not None and job.run_ms is not None]
    return percentiles(waits, over_ms=over_ms), percentiles(both, over_ms=over_ms)


def percentiles(values: Sequence[int], *, over_ms: int = 0) -> dict[str, int]:
    """Return percentiles of some times by name, their number, and how long ago the oldest ended; of none nothing."""
    if not values:
        return {}
    ordered = sorted(values)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    found = {name: ordered[min(int(len(ordered) * share), len(ordered) - 1)] for name, share in shares.items()}
    return found | {"counted": len(ordered), "over_ms": over_ms}


TIMEOUT_S: Final = 2.0
NEXT: Final = 10
LOOKED_THROUGH: Final = 1_000


def waiting_actors(queue: str) -> list[tuple[str, int]]:
    """Return the actors of the next waiting messages, most first; none while the broker is unavailable."""
    try:
        seen = look(family_of(queue), "live", "waiting", limit=LOOKED_THROUGH).items
    except (BrokerError, ForeignBroker):
        return []
    counts = Counter(message.actor_name for one in seen if (message := one.message) is not None)
    return sorted(counts.items(), key=lambda found: (-found[1], found[0]))


class QueueView:
    """A queue at one moment; reading the yard's state takes at most 2 s.

    ``stats``, ``holders`` and ``running`` are ``None`` while the broker is unavailable; ``next``, ``held`` and
    ``purges`` are empty where it is not Switchyard's own. ``waits`` and ``dones`` are times from being ready to the
    start, and to the end, empty without recent jobs; ``history`` says whether the database answered.
    ``paused_actors`` are pauses of actors of the queue, and of others that have put off messages of it. ``picture`` is
    of what held the slots lately, ``change`` the line to change while an actor blocks the queue, and ``node`` the
    address of the server that holds it, "" where the broker is one server.
    """

    def __init__(self, queue: Queue) -> None:
        self.queue, state = queue, yard_state()
        self.row = next(row for row in yard_rows(declared_yard(), state) if row.name == queue.name)
        stats = next((each for each in state.queues if each.queue == queue.name), None) if state is not None else None
        self.stats = stats
        self._read_broker(queue)
        self.pause = pause_facts(stats.pause) if stats is not None and stats.pause is not None else None
        self.rates = None if state is None else state.rates.get(queue.name)
        running = running_or_none() if state is not None else None
        if state is not None:
            failing = failures_of((self.row,), running or ())
            self.row = shown_row(self.row, YardFacts(state, (self.row,), running, {queue.name: self.held}, failing))
        self.pools = tuple(pool.name for pool in declared_yard().pools_of(queue.name))
        self.running = None if running is None else [job for job in running if job.queue == queue.name]
        self.holders = None if running is None else holders_of(queue.name, self.pools, running)
        ended = ended_jobs(queue.name)
        self.history = ended is not None
        self.waits, self.dones = times_of(ended or ())
        self.picture = None if running is None else _picture(queue, self.row, self.pools, running, ended or ())
        self.change = _change(queue, self.row, self.holders, ended or ())
        self.at = timezone.now()

    def _read_broker(self, queue: Queue) -> None:
        self.node = ""
        self.next: Sequence[SeenMessage] = ()
        self.held: tuple[HeldGroup, ...] = ()
        self.purges: list[dict[str, Any]] = []
        self.paused_actors: Sequence[ActorPause] = ()
        with suppress(BrokerError, LookupError, ForeignBroker):
            family = family_of(queue.name)
            self.node = family.calls.place_of(family.keys.bodies)
            if self.stats is None:
                return
            self.next = look(family, "live", "waiting", limit=NEXT).items
            self.purges = [purge_facts(purge) for purge in purges(family)]
            self.held = held_groups(family)
            here = {name for name, actor in dramatiq.get_broker().actors.items() if actor.queue_name == queue.name}
            here |= {group.actor for group in self.held if group.due is None}
            self.paused_actors = [each for each in pauses_in([family]) if each.is_open or each.actor in here]

    @property
    def tags(self) -> tuple[str, ...]:
        """Pools, promise and limits of the queue, from the topology."""
        pools = [declared_yard().pool(name) for name in self.pools]
        retry = self.queue.retry
        limits = (whole_duration(self.queue.soft_limit_ms), whole_duration(self.queue.hard_limit_ms))
        return (
            *(f"{pool.kind}, {pool.children} × {pool.slots}" for pool in pools),
            f"promise: {promise(self.queue.objective_ms, self.queue.done_objective_ms)}",
            f"limit {' / '.join(limits)}",
            retries_text(retry.retries, retry.span_ms(), speed=declared_yard().retry_speed),
            *((f"on node {self.node}",) if self.node else ()),
        )

    @property
    def held_counted(self) -> int:
        """Scheduled messages that are counted by actor: the next to be due."""
        return sum(group.count for group in self.held)

    @property
    def lead(self) -> str:
        """Sentence of what waits."""
        row = self.row
        if row.waiting is None:
            silent = "its node" if row.state == AWAY else "the broker"
            return f"What waits is unknown: {silent} does not answer. Messages that it accepted stay there."
        if not row.waiting:
            return f"Nothing waits for a slot{f'; {row.busy} of {row.slots} slots run a job' if row.busy else ''}."
        if row.state.word == QUIETED:
            return f"Nothing starts: its pool takes no new work. {jobs_text(row.waiting)}."
        if not row.slots:
            return f"Nothing starts: no pool serves it. {jobs_text(row.waiting)}."
        oldest = "" if row.oldest_age_ms is None else f", the oldest for {duration(row.oldest_age_ms)}"
        detail = f" ({row.state.detail})" if row.state.detail and not self.pause else ""
        return f"{jobs_text(row.waiting)}{oldest}{detail}."

    @property
    def holding(self) -> str:
        """Words after the name of the actor with most slots; "" where none runs in them."""
        first = self.holders[0] if self.holders and self.row.busy else None
        return first.holding(self.row.slots) if first and first.here else ""

    @property
    def held_back(self) -> str:
        """Text after the words "Scheduled": which actors, until when; "" where nothing is held."""
        if not self.held:
            return ""
        first, others = self.held[0], ", and others" if len(self.held) > 1 else ""
        due = f", the first due {ago(first.due)}" if first.due is not None else ""
        return f"{first.count:,} of {first.actor} ({first.reason}){due}{others}"

    @property
    def switched_off(self) -> str:
        """Reason for which acts on the queue are switched off; "" while the broker answers."""
        if self.stats is not None:
            return ""
        return NODE_SWITCHED_OFF if self.row.state == AWAY else SWITCHED_OFF

    @property
    def is_late(self) -> bool:
        """Whether moving what waits is the act that helps."""
        return self.row.state.word in ("Late", BLOCKED)

    @property
    def may_move(self) -> bool:
        """Whether moving what waits is offered beside the other acts: it does not help where all of it fails."""
        return bool(self.row.waiting) and not self.is_late and self.row.state.word not in (HANGS, FAILING)

    @property
    def depth(self) -> int:
        """Messages that a purge sets aside: waiting and scheduled ones, of every lane."""
        return 0 if self.stats is None else waiting_and_scheduled(self.stats)


def yard_state() -> YardState | None:
    """Return the state of the yard, or ``None`` while the broker is unavailable."""
    try:
        return YARD_STATE.result(TIMEOUT_S)
    except (NoAnswer, BrokerError):
        return None


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
    queue: Queue, row: Row, pools: Sequence[str], running: Iterable[Job], ended: Iterable[EndedQueueJob]
) -> dict[str, Any] | None:
    """Return what held the slots: the queue's jobs, and those of other queues that run in its pools now."""
    here = [job for job in running if job.holder.pool in pools or job.queue == queue.name]
    runs = [SlotRun(job.actor, job.started_at, None) for job in here if job.started_at is not None]
    runs += [SlotRun(job.actor, job.started_at, job.finished_at) for job in ended if job.started_at is not None]
    late = row.state.word in LATE_WORDS
    return picture_of(runs, row.slots, now_ms(), late_after_ms=queue.objective_ms if late else None)


def _change(
    queue: Queue, row: Row, holders: Sequence[SlotHolder] | None, ended: Iterable[EndedQueueJob]
) -> dict[str, Any] | None:
    if row.state.word != BLOCKED or not holders:
        return None
    first = holders[0]
    lately = percentiles([job.run_ms for job in ended if job.actor == first.actor and job.run_ms is not None])
    return line_of(queue, first.actor, max(first.longest.run_ms or 0, lately.get("p95", 0)))
