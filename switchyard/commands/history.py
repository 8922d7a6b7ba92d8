"""``manage.py switchyard history``: list jobs that ended, or show one with its attempts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser

from switchyard.commands.jobs import CONDITIONS, add_conditions, print_job, print_page
from switchyard.console.commands import ActsCommand, refusal
from switchyard.history.filters import Filter, why_none_found
from switchyard.history.queries import Cursor, find, job_of_row, search
from switchyard.jobs.listing.pages import JobsPage
from switchyard.jobs.passport.reading import passport_of
from switchyard.jobs.presentation import job_json

MOST: Final = 1_000

EXAMPLES = """examples:
  manage.py switchyard history list --failures --since 1h          the last hour's failures, those that were retried too
  manage.py switchyard history list --state dead --queue default --json
  manage.py switchyard history list --argument customer_id=42       an argument that its actor lists in search=(...)
  manage.py switchyard history list --after 1763728200000-42        the next page, as the last line of a page says
  manage.py switchyard history show 0f8fad5b-d9cb-469f-a165-70867728950e"""


class Command(ActsCommand):
    """List jobs of the history, or show one."""

    help = "List jobs that ended, by any condition, or show one with its attempts."
    examples, subject = EXAMPLES, "history"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        listing = add("list", help="jobs that match all conditions, newest end first")
        add_conditions(listing, states="state, repeatable: succeeded, dead, cancelled, expired", most=MOST)
        add("show", help="one job with its attempts").add_argument("id", metavar="ID")

    def _list(self, options: dict[str, Any]) -> None:
        try:
            wanted = Filter.from_query({name: options[name] for name in CONDITIONS})
            after = Cursor.parse(options["after"]) if options["after"] else None
        except ValueError as error:
            raise refusal(error) from error
        page = search(wanted, after=after, limit=options["limit"])
        jobs, following = tuple(map(job_of_row, page.rows)), str(page.after or "")
        if not self.as_json:
            print_page(JobsPage(jobs, following), self.stdout)
        note = why_none_found(wanted.argument, wanted.actor)
        value = {"jobs": [job_json(job, arguments=True) for job in jobs], "after": following or None}
        self.answer(f"note: {note}" if note else "", value, indent=2)

    def _show(self, options: dict[str, Any]) -> None:
        job_id = options["id"]
        known = None if find(job_id) is None else passport_of(job_id)
        if known is None:
            raise CommandError(
                f"job {job_id}: it is not in the history; a job that has not ended is in the broker: "
                f"manage.py switchyard jobs show {job_id}"
            )
        print_job(known, self.stdout, as_json=self.as_json)
