"""Pages of the list of jobs in another order: of those that have ended."""

from __future__ import annotations

import structlog
from django.db import DatabaseError

from switchyard.history.filters import Filter
from switchyard.history.sorted_search import search_sorted
from switchyard.jobs.listing.jobs_page import JobsPage
from switchyard.jobs.listing.lines import line_of_row
from switchyard.jobs.listing.unfinished import wanted_of_history

log = structlog.get_logger(__name__)


def sorted_jobs(wanted: Filter, sort: str, *, after: str = "", limit: int, arguments: bool = False) -> JobsPage:
    """Return a page of the ended jobs that match a filter.

    Args:
        sort: One of ``SORTS``.
        after: Cursor of the page before.
        arguments: Whether the lines show the jobs' arguments.

    Raises:
        ValueError: the cursor is none, or no ended job can match.
    """
    ended = wanted_of_history(wanted)
    if ended is None:
        raise ValueError(f"sort: {sort} orders jobs that have ended; leave it out for {', '.join(wanted.states)}")
    is_of_failures = bool(wanted.failures or wanted.error or wanted.fingerprint)
    try:
        found = search_sorted(ended, sort, after=after, limit=limit)
    except DatabaseError as error:
        log.warning("the sorted list of jobs is empty: the database does not answer", error=str(error))
        return JobsPage((), "", history_away=True)
    times = [(row.failed_at if is_of_failures else row.finished_at) or row.finished_at for row in found.rows]
    lines = tuple(line_of_row(row, at=at, arguments=arguments) for row, at in zip(found.rows, times, strict=True))
    return JobsPage(lines, found.after, sorted_from=found.sorted_from)
