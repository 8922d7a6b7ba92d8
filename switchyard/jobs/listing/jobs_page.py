"""Shape of a page of the list of jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from switchyard.jobs.listing.lines import JobLine

LIMIT: Final = 50


@dataclass(frozen=True, slots=True)
class JobsPage:
    """A page of the list.

    Args:
        after: Cursor of the next page; "" at the end of the list.
        cut: Queues that hold more messages than were looked through.
        away: Queues that are away or start nothing: what has not ended there is missing.
        broker_away: What has not ended is missing, because the broker did not answer.
        history_away: What has ended is missing, because the database did not answer.
        broker_error: The broker's error, with its remedy; "" without one.
        by_due_time: The next to be due is first.
        sorted_from: Time (ms since the epoch) of the oldest job that a sorted list compared, where more would match.
    """

    lines: tuple[JobLine, ...]
    after: str
    cut: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    broker_away: bool = False
    history_away: bool = False
    broker_error: str = ""
    by_due_time: bool = False
    sorted_from: int | None = None
