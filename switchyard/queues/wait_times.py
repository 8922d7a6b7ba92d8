"""Times of a queue's last jobs that ended, from the history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django.db import DatabaseError

from switchyard.broker.clock import now_ms
from switchyard.history.models import JobRow

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


def times_of(ended: Iterable[EndedQueueJob]) -> tuple[WaitTimes | None, WaitTimes | None]:
    """Return the times from being ready to the start, and to the end."""
    jobs = list(ended)
    over_ms = now_ms() - min((job.finished_at for job in jobs), default=now_ms())
    waits = [job.wait_ms for job in jobs if job.wait_ms is not None]
    both = [job.wait_ms + job.run_ms for job in jobs if job.wait_ms is not None and job.run_ms is not None]
    return percentiles(waits, over_ms=over_ms), percentiles(both, over_ms=over_ms)


def percentiles(values: Sequence[int], *, over_ms: int = 0) -> WaitTimes | None:
    """Return the percentiles of some times; ``None`` when there are none."""
    if not values:
        return None
    ordered = sorted(values)
    at: list[Any] = [ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (0.5, 0.95, 0.99)]
    return WaitTimes(len(ordered), over_ms, *at)
