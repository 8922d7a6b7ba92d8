"""Pages of the list of scheduled jobs, the next to be due first, over all queues."""

from __future__ import annotations

import re
from typing import Final

from switchyard.broker.admin.due_order import AT_ONCE, next_due
from switchyard.broker.errors import BrokerError
from switchyard.history.filters import Filter
from switchyard.jobs.listing.lines import JobsPage
from switchyard.jobs.listing.unfinished import Comparison, Unfinished, lines_of
from switchyard.jobs.running import asked_families

# Messages that one page looks through where a filter compares them.
LOOKED_THROUGH: Final = 10_000
_PLACE: Final = re.compile(r"due\.([0-9]{1,15})\.(.{1,200})", re.DOTALL)


def is_by_due_time(wanted: Filter) -> bool:
    """Return whether a list is ordered by due time: one of scheduled jobs alone."""
    return wanted.states == ("scheduled",) and not (
        wanted.failures or wanted.error or wanted.fingerprint or wanted.release
    )


def scheduled_jobs(wanted: Filter, *, after: str = "", limit: int, arguments: bool = False) -> JobsPage:
    """Return a page of the scheduled jobs that match a filter, the next to be due first.

    Args:
        after: Cursor of the page before.
        arguments: Whether the lines show the jobs' arguments.

    Raises:
        ValueError: the cursor is none.
    """
    start, comparison = _parse(after), Comparison(wanted)
    found: list[Unfinished] = []
    looked, last = 0, start
    count = AT_ONCE if comparison else limit + 1
    try:
        asked, away = asked_families(wanted.queue)
        walk = next_due(asked, after=start, count=count)
        while len(found) <= limit and looked < LOOKED_THROUGH and (seen := next(walk, None)) is not None:
            looked += count
            for message in seen:
                last = (message.due_at or 0, message.id)
                if (at := comparison.time_of(message.body)) is not None:
                    found.append(Unfinished(at, message.id, "scheduled", message))
        is_over = looked < LOOKED_THROUGH and len(found) <= limit
        chosen = found[:limit]
        lines = lines_of(chosen, wanted, arguments=arguments)
    except BrokerError as error:
        return JobsPage((), "", broker_away=True, broker_error=str(error), by_due_time=True)
    if len(found) > limit:
        last = (chosen[-1].seen.due_at or 0, chosen[-1].id)
    place = "" if is_over or last is None else "due.{}.{}".format(*last)
    return JobsPage(tuple(lines), place, away=away, by_due_time=True)


def _parse(after: str) -> tuple[int, str] | None:
    if not after:
        return None
    found = _PLACE.fullmatch(after)
    if found is None:
        raise ValueError(f"after: {after!r:.100} is no place in a list of scheduled jobs; begin with its first page")
    return int(found[1]), found[2]
