"""Facts of queues for pages and commands, with their sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import dramatiq
from django.db import DatabaseError

from switchyard.broker.admin.purge import Purge
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.shapes import QueueStats
from switchyard.broker.stores.job_record import Job
from switchyard.broker.topology import Queue
from switchyard.console.formatting import ago, counted, duration, jobs_text, promise
from switchyard.history.models import JobRow
from switchyard.middleware.errors import place_of
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
