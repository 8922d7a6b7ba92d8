"""Pages of the list of jobs, newest first: what has not ended from the broker, what has from the history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice

from django.db import DatabaseError

from switchyard.broker.errors import BrokerError
from switchyard.history.cursors import Cursor
from switchyard.history.filters import Filter
from switchyard.history.models import JobRow
from switchyard.history.queries import search
from switchyard.history.sorted_search import search_sorted
from switchyard.jobs.listing.lines import LIMIT, JobsPage, line_of_row
from switchyard.jobs.listing.scheduled import is_by_due_time, scheduled_jobs
from switchyard.jobs.listing.unfinished import (
    Unfinished,
    UnfinishedJobs,
    lines_of,
    unfinished_jobs,
    wanted_of_history,
    wants_unfinished,
)
from switchyard.loggers import get_logger

log = get_logger(__name__)


def find_jobs(
    wanted: Filter, *, after: str = "", limit: int = LIMIT, arguments: bool = False, sort: str = ""
) -> JobsPage:
    """Return a page of the jobs that match a filter, newest first; of scheduled jobs alone the next to be due first.

    Args:
        after: Cursor of the page before.
        arguments: Whether the lines show the jobs' arguments.
        sort: Another order, of jobs that have ended: one of ``SORTS``.

    Raises:
        ValueError: the cursor is none of such a list, or nothing that can match is ordered so.
    """
    if sort:
        return sorted_jobs(wanted, sort, after=after, limit=limit, arguments=arguments)
    if is_by_due_time(wanted):
        return scheduled_jobs(wanted, after=after, limit=limit, arguments=arguments)
    place = ListCursor.parse(after)
    rows, ended_to, history_away = _ended(wanted, place, limit)
    live, broker_error = UnfinishedJobs([], [], set()), ""
    if not place.live_over and wants_unfinished(wanted):
        try:
            ids = {row.job_id for row in rows}
            live = unfinished_jobs(wanted, before=place.live, limit=limit + 1, among=ids)
        except BrokerError as error:
            broker_error = str(error)
    column = "failed_at" if wanted.failures or wanted.fingerprint or wanted.error else "finished_at"
    # A job that was requeued is listed as it stands, once.
    timed = [(getattr(row, column), row) for row in rows if row.job_id not in live.also]
    # The rest of the history is not known yet: unfinished jobs that are older come with a later page.
    known_to = ended_to.at if ended_to is not None else 0
    older = [(job.at, job) for job in live.jobs if job.at >= known_to]
    both: Iterator[tuple[int, Unfinished | JobRow]] = merge(older, timed, key=_time_of, reverse=True)
    chosen = list(islice(both, limit))
    taken_live = [entry for _, entry in chosen if isinstance(entry, Unfinished)]
    taken_rows = [(at, entry) for at, entry in chosen if isinstance(entry, JobRow)]
    try:
        lines = {line.id: line for line in lines_of(taken_live, wanted, arguments=arguments)}
    except BrokerError as error:
        broker_error, lines = str(error), {}
    next_place = ListCursor(
        live=taken_live[-1][:2] if taken_live else place.live,
        ended=_place_after(taken_rows, timed, ended_to, place.ended),
        live_over=len(taken_live) == len(live.jobs),
        ended_over=len(taken_rows) == len(timed) and ended_to is None,
    )
    shown = (
        lines.get(entry.id) if isinstance(entry, Unfinished) else line_of_row(entry, at=at, arguments=arguments)
        for at, entry in chosen
    )
    return JobsPage(
        lines=tuple(line for line in shown if line is not None),
        after="" if next_place.live_over and next_place.ended_over else str(next_place),
        cut=tuple(live.cut),
        away=live.away,
        broker_away=bool(broker_error),
        history_away=history_away,
        broker_error=broker_error,
    )


def _ended(wanted: Filter, place: ListCursor, limit: int) -> tuple[list[JobRow], Cursor | None, bool]:
    """Return rows of the history, where it goes on, and whether it did not answer."""
    ended = wanted_of_history(wanted)
    if place.ended_over or ended is None:
        return [], None, False
    try:
        return (*search(ended, after=place.ended, limit=limit), False)
    except DatabaseError as error:
        log.warning("the list of jobs lacks the history: the database does not answer", error=str(error))
        return [], None, True


def _time_of(entry: tuple[int, Unfinished | JobRow]) -> int:
    return entry[0]


def _place_after(
    taken: list[tuple[int, JobRow]], found: list[tuple[int, JobRow]], ended_to: Cursor | None, before: Cursor | None
) -> Cursor | None:
    if len(taken) == len(found):
        return ended_to if ended_to is not None else before
    return Cursor(taken[-1][0], taken[-1][1].pk) if taken else before


_END = "-"
_LONGEST_ID = 200


@dataclass(frozen=True, slots=True)
class ListCursor:
    """Places after which a list's next page goes on.

    As text: ``<place in the history>~<place in the broker>``, each empty at the beginning and ``-`` at the end.

    Args:
        live: Time of enqueueing (ms since the epoch) and id of the last unfinished job that was listed.
        ended: Place in the history.
        live_over, ended_over: Nothing more comes from there.
    """

    live: tuple[int, str] | None = None
    ended: Cursor | None = None
    live_over: bool = False
    ended_over: bool = False

    @classmethod
    def parse(cls, text: str) -> ListCursor:
        """Return the cursor in a text; the beginning for an empty one.

        Raises:
            ValueError: there is none.
        """
        if not text:
            return cls()
        ended, tilde, live = text.partition("~")
        at, _, job_id = live.partition(".")
        usable = tilde and (live in ("", _END) or (at.isdecimal() and len(at) <= 15 and 0 < len(job_id) <= _LONGEST_ID))
        if not usable:
            raise ValueError(f"after: {text!r:.100} is no place in a list; begin with its first page")
        return cls(
            live=(int(at), job_id) if job_id else None,
            ended=Cursor.parse(ended) if ended not in ("", _END) else None,
            live_over=live == _END,
            ended_over=ended == _END,
        )

    def __str__(self) -> str:
        ended = _END if self.ended_over else "" if self.ended is None else str(self.ended)
        live = _END if self.live_over else "" if self.live is None else f"{self.live[0]}.{self.live[1]}"
        return f"{ended}~{live}"


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
