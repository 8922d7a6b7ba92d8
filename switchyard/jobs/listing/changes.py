"""Changes of a list of jobs that a page shows: its rows as they stand, and the number of jobs that came since."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from django.db import DatabaseError

from switchyard.broker.errors import BrokerError
from switchyard.history.filters import Filter
from switchyard.history.models import JobRow
from switchyard.jobs.listing.lines import LIMIT, JobLine, JobsPage, line_of_record, line_of_row
from switchyard.jobs.listing.pages import find_jobs
from switchyard.jobs.running import records_of

# The first page of a list is read at most so often for all who look at it, and takes at most a twentieth of the time.
LEAST_AGE_S: Final = 2.0
AGE_PER_COST: Final = 20
MOST_KEPT: Final = 64
# The history has a job some seconds after its end: one that ended before the page was made may come after it.
LATE_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class ListChanges:
    """Changes of a list since it was shown.

    Args:
        lines: The jobs that are shown, as they stand; one that nobody knows any longer is left out.
        new_count: Jobs that came since, among those of a first page; ``more`` follow.
        is_away: Broker or database did not answer.
    """

    lines: tuple[JobLine, ...]
    new_count: int
    more: bool
    is_away: bool


def changes_of(wanted: Filter, shown: Sequence[str], *, shown_at: int, arguments: bool) -> ListChanges:
    """Return what has changed in a list.

    Args:
        shown: Ids of the jobs in the list, at most a page.
        shown_at: When the list was made, ms since the epoch.
        arguments: Whether the lines show the jobs' arguments.
    """
    page = fresh_page(wanted, arguments=arguments)
    lines = {line.id: line for line in page.lines}
    others, is_away = _lines_of([id_ for id_ in shown if id_ not in lines], arguments=arguments)
    # Of a list that was cut, older jobs move up when others leave it.
    since = shown_at - LATE_MS if len(shown) >= LIMIT else 0
    known = set(shown)
    new = [line for line in page.lines if line.id not in known and max(line.at, line.started_at or 0) >= since]
    lines |= others
    return ListChanges(
        lines=tuple(lines[id_] for id_ in shown if id_ in lines),
        new_count=len(new),
        more=bool(new and page.after) and new[-1] is page.lines[-1],
        is_away=is_away or page.broker_away or page.history_away,
    )


@dataclass(slots=True)
class _Kept:
    page: JobsPage | None = None
    until_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


@lru_cache(maxsize=MOST_KEPT)
def _kept(wanted: Filter, arguments: bool) -> _Kept:
    return _Kept()


def fresh_page(wanted: Filter, *, arguments: bool) -> JobsPage:
    """Return the first page of a list, read once for all who ask for it within 2 s, or 20 times what it took."""
    kept = _kept(wanted, arguments)
    with kept.lock:
        began = time.monotonic()
        if kept.page is None or began >= kept.until_s:
            kept.page = find_jobs(wanted, arguments=arguments)
            ended = time.monotonic()
            kept.until_s = ended + max(LEAST_AGE_S, AGE_PER_COST * (ended - began))
        return kept.page


def _lines_of(ids: list[str], *, arguments: bool) -> tuple[dict[str, JobLine], bool]:
    """Return jobs by their ids: from the broker, once they have ended from the history; and whether one was away."""
    away = False
    try:
        records = records_of(ids)
    except BrokerError:
        records, away = {}, True
    lines = {id_: line_of_record(record, arguments=arguments) for id_, record in records.items()}
    ended = [id_ for id_ in ids if id_ not in records or records[id_].ended]
    try:
        for row in JobRow.objects.filter(job_id__in=ended):
            lines[row.job_id] = line_of_row(row, at=row.finished_at or row.failed_at or 0, arguments=arguments)
    except DatabaseError:
        away = True
    return lines, away
