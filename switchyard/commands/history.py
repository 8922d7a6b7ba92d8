"""``manage.py switchyard history``: list jobs that ended; ``jobs show`` shows one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.core.management.base import CommandParser

from switchyard.commands.jobs import CONDITIONS, add_conditions, page_lines
from switchyard.console.commands import ActsCommand, wrong
from switchyard.history.filters import Filter, why_none_found
from switchyard.history.queries import Cursor, job_of_row, search
from switchyard.jobs.listing.pages import JobsPage
from switchyard.jobs.presentation import job_json

MOST: Final = 1_000

EXAMPLES = """examples:
  manage.py switchyard history list --failures --since 1h          the last hour's failures, those that were retried too
  manage.py switchyard history list --state dead --queue default --json
  manage.py switchyard history list --argument customer_id=42       an argument that its actor lists in search=(...)
  manage.py switchyard history list --after 1763728200000-42        the next page, as the last line of a page says"""


class Command(ActsCommand):
    """List jobs of the history."""

    help = "List jobs that ended, by any condition."
    examples, subject = EXAMPLES, "history"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        listing = add("list", help="jobs that match all conditions, newest end first")
        add_conditions(listing, states="state, repeatable: succeeded, dead, cancelled, expired", most=MOST)

    def _list(self, options: dict[str, Any]) -> None:
        try:
            wanted = Filter.from_query({name: options[name] for name in CONDITIONS})
            after = Cursor.parse(options["after"]) if options["after"] else None
        except ValueError as error:
            raise wrong(str(error)) from error
        page = search(wanted, after=after, limit=options["limit"])
        jobs, following = tuple(map(job_of_row, page.rows)), str(page.after or "")
        note = why_none_found(wanted.argument, wanted.actor)
        lines = [*page_lines(JobsPage(jobs, following)), *([f"note: {note}"] if note else [])]
        value = {"jobs": [job_json(job, arguments=True) for job in jobs], "after": following or None}
        self.answer(lines, value, indent=2)
