"""Facts of queues for pages and commands, with their sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import dramatiq
from django.db import DatabaseError

from switchyard.broker.admin.purge import Purge
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.shapes import QueueStats
from switchyard.broker.stores.job_record import Job
from switchyard.broker.topology import Queue
from switchyard.console.formatting import ago, counted, duration, jobs_text, promise
from switchyard.history.models import JobRow
from switchyard.middleware.places import place_of
from switchyard.operations.findings.lateness import none_late, slower_queue
from switchyard.operations.rows import Row

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


@dataclass(frozen=True, slots=True)
class SlotBar:
    """A run as it is drawn; ``kind`` is ``ok``, ``live`` or ``bad``, the class in the style sheet."""

    x: float
    y: int
    width: float
    kind: str
    label: str
    title: str

    @property
    def label_x(self) -> float:
        return round(self.x + 8, 1)

    @property
    def hatch_x(self) -> float | None:
        """Place of the hatched end; ``None`` without one."""
        return round(self.x + self.width - 9, 1) if self.kind == "bad" and self.width > 12 else None


@dataclass(frozen=True, slots=True)
class SlotPicture:
    """The picture.

    Args:
        slots: Lines that are drawn, at most ``MOST_SLOTS``.
        marks: Places of the axis with their times.
        span: The time that is drawn, as text.
        has_long: A run is marked that took longer than the queue promises to start in.
    """

    blocks: tuple[SlotBar, ...]
    slots: int
    marks: tuple[tuple[float, str], ...]
    span: str
    height: int
    has_long: bool

    @property
    def lines(self) -> list[tuple[int, int]]:
        """Place and number of each line."""
        return [(number * SLOT_HEIGHT, number + 1) for number in range(self.slots)]


def picture_of(runs: Iterable[SlotRun], slots: int, now: int, *, late_after_ms: int | None) -> SlotPicture | None:
    """Return the picture, or ``None`` where nothing ran.

    Args:
        runs: In any order.
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
    has_long = any(block.kind == "bad" for block in blocks)
    return SlotPicture(blocks, drawn, marks, duration(now - began), drawn * SLOT_HEIGHT, has_long)


def _blocks(runs: Iterable[SlotRun], slots: int, began: int, now: int, late_after_ms: int | None) -> Iterator[SlotBar]:
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
        label = run.actor if len(run.actor) * LETTER + 16 < width else ""
        so_far = " so far" if run.ended_at is None else ""
        x = min((start - began) * scale, WIDTH - width)
        yield SlotBar(
            round(x, 1), slot * SLOT_HEIGHT, round(width, 1), kind, label, f"{run.actor}, {duration(took)}{so_far}"
        )


@dataclass(frozen=True, slots=True)
class QueueLine:
    """A change of an actor's ``queue_name``.

    Args:
        place: File and line of the actor; ``took_ms`` is its longest usual run.
        before, after: Names of queues; ``promise`` is that of the queue after.
    """

    actor: str
    place: str
    took_ms: int
    before: str
    after: str
    promise: str


def line_of(queue: Queue, actor: str, longest_ms: int) -> QueueLine | None:
    """Return the change that fits an actor's longest run; ``None`` for another queue's actor, and where none fits."""
    found = dramatiq.get_broker().actors.get(actor)
    best = slower_queue(queue, longest_ms)
    if found is None or found.queue_name != queue.name or best is None:
        return None
    promised = promise(best.objective_ms, best.done_objective_ms)
    return QueueLine(actor, place_of(found.fn), longest_ms, queue.name, best.name, promised)


MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class SlotHolder:
    """An actor that runs in slots of the queue's pools, for this queue or another one that they serve.

    Args:
        pools: Of the slots; those of a pool that serves only the queue's retries are among them.
        longest: The job that has run for longest.
        here: Those of its jobs that run in the queue's own pools.
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


@dataclass(frozen=True, slots=True)
class PurgeFacts:
    """A purge whose messages are set aside, in words. While it is not being dropped it can be undone."""

    purge: Purge

    @property
    def can_undo(self) -> bool:
        return not self.purge.claim

    @property
    def sentence(self) -> str:
        """Sentence of who set messages aside, when, and why."""
        purge = self.purge
        reason = f" Reason: {purge.reason}." if purge.reason else ""
        return f"{counted(purge.count, 'message')} set aside {ago(datetime_of(purge.at))} by {purge.by}.{reason}"

    @property
    def end(self) -> str:
        """Sentence of what becomes of them."""
        if self.can_undo:
            return f"The scheduler drops them after {datetime_of(self.purge.until):%H:%M:%S} UTC."
        return "They are being put back." if self.purge.claim == "undo" else "They are being dropped."


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


@dataclass(frozen=True, slots=True)
class WaitTimes:
    """Times of the queue's last jobs that ended, in ms; the oldest of those counted ended ``over_ms`` ago."""

    counted: int
    over_ms: int
    p50: int
    p95: int
    p99: int


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


def times_of(jobs: Sequence[EndedQueueJob]) -> tuple[WaitTimes | None, WaitTimes | None]:
    """Return the times from being ready to the start, and to the end."""
    over_ms = now_ms() - min((job.finished_at for job in jobs), default=now_ms())
    waits = [job.wait_ms for job in jobs if job.wait_ms is not None]
    both = [job.wait_ms + job.run_ms for job in jobs if job.wait_ms is not None and job.run_ms is not None]
    return percentiles(waits, over_ms=over_ms), percentiles(both, over_ms=over_ms)


def percentiles(values: Sequence[int], *, over_ms: int = 0) -> WaitTimes | None:
    """Return the percentiles of some times; ``None`` when there are none."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p95, p99 = (ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (0.5, 0.95, 0.99))
    return WaitTimes(len(ordered), over_ms, p50, p95, p99)
