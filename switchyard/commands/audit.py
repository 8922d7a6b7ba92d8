"""``manage.py switchyard audit list``: the acts of people, newest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandParser

from switchyard.audit.models import AuditEntry
from switchyard.audit.queries import AuditFilter, as_json, page
from switchyard.console.commands import ActsCommand, number_within, refusal
from switchyard.middleware.logs import printable

MOST = 1_000
EXAMPLES = """examples:
  manage.py switchyard audit list                                who did what, newest first
  manage.py switchyard audit list --since 1h --act queue         acts on queues in the last hour
  manage.py switchyard audit list --who ada --outcome failed --json"""


class Command(ActsCommand):
    """Read the audit log."""

    help = "List the acts of people on the yard: who, when, why, what, how many."
    examples, subject = EXAMPLES, "audit log"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        listing = add("list", help="acts, newest first")
        listing.add_argument("--who", default="", metavar="NAME", help="user, owner of a token, or system user")
        listing.add_argument("--act", default="", metavar="ACT", help="queue.pause, or its thing alone: queue")
        listing.add_argument("--target", default="", metavar="ID", help="queue, job, schedule, … by name or id")
        listing.add_argument("--via", default="", choices=AuditEntry.Via.values)
        listing.add_argument("--outcome", default="", choices=AuditEntry.Outcome.values)
        listing.add_argument("--since", default="", metavar="TIME", help="30m, 1h, 7d ago, or ISO 8601")
        listing.add_argument("--until", default="", metavar="TIME", help="as --since")
        listing.add_argument("--before", type=int, metavar="ID", help="acts older than this one: the next page")
        limit = number_within(1, MOST)
        listing.add_argument("--limit", type=limit, default=50, metavar="N", help=f"1 to {MOST:,} (default: 50)")

    def _list(self, options: dict[str, Any]) -> None:
        try:
            asked = AuditFilter.from_query({name: value for name, value in options.items() if isinstance(value, str)})
        except ValueError as error:
            raise refusal(error) from error
        found = page(asked, before=options["before"], limit=options["limit"])
        lines = list(map(_line, found.rows)) or ["No act matches." if asked.to_query() else "No act yet."]
        lines += [f"more: --before {found.older}"] if found.older else []
        self.answer(lines, {"acts": [as_json(entry) for entry in found.rows], "older": found.older}, indent=2)


def _line(entry: AuditEntry) -> str:
    count = "" if entry.count is None else f" ({entry.count:,})"
    error = f" {entry.error}" if entry.error else ""
    reason = f": {entry.reason}" if entry.reason else ""
    what = f"{entry.act} {entry.target}".strip()
    # Reasons and names are free text.
    line = f"{entry.at:%Y-%m-%d %H:%M:%S} UTC  {entry.who} ({entry.via})  {what}{count}  {entry.outcome}{error}{reason}"
    return printable(line)
