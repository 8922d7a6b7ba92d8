"""``manage.py switchyard history``: list jobs that ended, or show one with its attempts."""

from __future__ import annotations

import json
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser

from switchyard.broker.clock import datetime_of
from switchyard.console.commands import ActionParser, PrintingCommand, as_command_error, show_examples
from switchyard.console.formatting import aligned, duration
from switchyard.history.filters import TEXTS, Filter, why_none_found
from switchyard.history.models import AttemptRow, JobRow
from switchyard.history.queries import Cursor, HistoryPage, attempt_body, attempts, find, job_row_body, search
from switchyard.middleware.logs import printable

MOST: Final = 1_000
HEADINGS: Final = ("ended (UTC)", "state", "actor", "queue", "attempts", "waited", "ran", "job", "error")
HELP: Final = {
    "actor": "name of an actor",
    "queue": "name of a queue",
    "owner": "owner of the job",
    "parent": "id of the job that sent it",
    "tag": "one of the job's tags",
    "error": "class of the last failure's exception, or a part of its text",
    "fingerprint": "fingerprint of the last failure",
    "release": "release of the worker that ran it last",
}

EXAMPLES = """examples:
  manage.py switchyard history list --failures --since 1h          the last hour's failures, those that were retried too
  manage.py switchyard history list --state dead --queue default --json
  manage.py switchyard history list --argument customer_id=42       an argument that its actor lists in search=(...)
  manage.py switchyard history list --after 1763728200000-42        the next page, as the last line of a page says
  manage.py switchyard history show 0f8fad5b-d9cb-469f-a165-70867728950e"""


# Names of the options that ``add_conditions`` adds.
CONDITIONS: Final = ("state", *TEXTS, "argument", "since", "until", "failures")


def add_conditions(listing: CommandParser, *, states: str, most: int) -> None:
    """Add the options of a list of jobs: its conditions, and the place and the length of a page.

    Args:
        states: Help of ``--state``.
        most: Jobs of a page at most.
    """
    listing.add_argument("--state", action="append", help=states)
    for name in TEXTS:
        listing.add_argument(f"--{name}", help=HELP[name])
    listing.add_argument("--argument", metavar="NAME=VALUE", help="exact value of a searchable argument")
    listing.add_argument("--since", help="30m, 1h or 7d ago, or an ISO time (UTC)")
    listing.add_argument("--until", help="as --since; the time itself is left out")
    listing.add_argument("--failures", action="store_true", help="with a failed attempt, also those retried")
    listing.add_argument("--after", default="", help="where the page before ended")
    listing.add_argument("--limit", type=int, default=50, help=f"jobs of a page, 50, at most {most}")


class Command(PrintingCommand):
    """List jobs of the history, or show one."""

    help = "List jobs that ended, by any condition, or show one with its attempts."

    def add_arguments(self, parser: CommandParser) -> None:
        show_examples(parser, EXAMPLES)
        actions = parser.add_subparsers(dest="action", required=True, parser_class=ActionParser)
        listing = actions.add_parser("list", help="jobs that match all conditions, newest end first")
        add_conditions(listing, states="state, repeatable: succeeded, dead, cancelled, expired", most=MOST)
        listing.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
        show = actions.add_parser("show", help="one job with its attempts")
        show.add_argument("id", metavar="ID")
        show.add_argument("--json", action="store_true", dest="as_json", help="print JSON")

    def handle(self, *args: Any, action: str, as_json: bool, **options: Any) -> None:
        """Print a page or a job; exit 1 for an unusable condition and for an unknown job."""
        with as_command_error("history"):
            if action == "show":
                self._show(options["id"], as_json)
            else:
                self._list(options, as_json)

    def _list(self, options: dict[str, Any], as_json: bool) -> None:
        try:
            wanted = Filter.from_query({name: options[name] for name in CONDITIONS})
            after = Cursor.parse(options["after"]) if options["after"] else None
        except ValueError as error:
            raise CommandError(str(error)) from error
        page = search(wanted, after=after, limit=min(max(options["limit"], 1), MOST))
        following = None if page.after is None else str(page.after)
        if as_json:
            self.print_json({"jobs": [job_row_body(row) for row in page.rows], "after": following})
            return
        self.stdout.write(_table(page))
        if note := why_none_found(wanted.argument, wanted.actor):
            self.stdout.write(f"note: {note}")
        if following is not None:
            self.stdout.write(f"more: --after {following}")

    def _show(self, job_id: str, as_json: bool) -> None:
        row = find(job_id)
        if row is None:
            raise CommandError(
                f"job {job_id}: it is not in the history; a job that has not ended is in the broker: "
                f"manage.py switchyard jobs show {job_id}"
            )
        tried = attempts(job_id)
        body = job_row_body(row) | {"tried": [attempt_body(each) for each in tried]}
        if as_json:
            self.print_json(body)
            return
        for name, value in body.items():
            if name != "tried" and value not in (None, "", []):
                shown = printable(value) if isinstance(value, str) else json.dumps(value)
                self.stdout.write(f"{name:16} {shown}")
        for each in tried:
            self._print_attempt(each)

    def _print_attempt(self, each: AttemptRow) -> None:
        ended = datetime_of(each.finished_at)
        line = (
            f"attempt {each.attempt:<8} {each.state} at {ended:%Y-%m-%d %H:%M:%S}, {each.worker or 'no worker'}"
            f"{f': {each.error_type}: {each.error_message}' if each.error_type else ''}"
        )
        self.stdout.write(printable(line))
        for line in each.logs.splitlines():
            self.stdout.write(f"  {printable(line)}")


def _table(page: HistoryPage) -> str:
    if not page.rows:
        return "no job of the history matches" if page.after is None else "none of the jobs looked through matches"
    # Names and errors of a message may contain terminal escape codes.
    return aligned([HEADINGS, *(tuple(map(printable, _cells(row))) for row in page.rows)])


def _cells(row: JobRow) -> tuple[str, ...]:
    return (
        f"{datetime_of(row.finished_at):%Y-%m-%d %H:%M:%S}",
        row.state,
        row.actor,
        row.queue,
        str(row.attempts),
        "" if row.wait_ms is None else duration(row.wait_ms),
        "" if row.run_ms is None else duration(row.run_ms),
        row.job_id,
        row.error_type,
    )
