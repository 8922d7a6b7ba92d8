"""``manage.py schedules list`` and ``schedules run NAME``."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from apps.platform.console.command_errors import as_command_error
from apps.platform.console.command_help import show_examples
from apps.platform.schedules import queries, services

HEADINGS = ("schedule", "cron (UTC)", "queue", "last", "late", "next")


EXAMPLES = """examples:
  manage.py schedules list
  manage.py schedules run purge_delivery_attempts      now, independent of its ticks; prints the job's id"""


class Command(BaseCommand):
    """List the schedules, or run one now."""

    help = "List the schedules, or run one now."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the actions list and run."""
        show_examples(parser, EXAMPLES)
        forms = parser.add_subparsers(dest="action", required=True)
        listing = forms.add_parser("list", help="every schedule, with its last tick and its next")
        listing.add_argument("--json", action="store_true", help="print JSON")
        run = forms.add_parser("run", help="enqueue a schedule's actor now, independent of its ticks")
        run.add_argument("name", metavar="NAME", help="name of the actor, see list")
        run.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the list, or the id of the enqueued job."""
        if options["action"] == "run":
            try:
                with as_command_error("schedules"):
                    job_id = services.run_now(options["name"])
            except services.UnknownSchedule as error:
                raise CommandError(str(error)) from error
            self.stdout.write(json.dumps({"id": job_id}) if options["json"] else job_id)
            return
        with as_command_error("schedules"):
            rows = queries.overview(timezone.now())
        self.stdout.write(_json(rows) if options["json"] else _table(rows))


def _json(rows: list[queries.ScheduleRow]) -> str:
    return json.dumps([dataclasses.asdict(row) for row in rows], default=_iso, indent=2)


def _iso(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _table(rows: list[queries.ScheduleRow]) -> str:
    if not rows:
        return "no actor is periodic; declare one with periodic=cron(…)"
    cells = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _cells(row: queries.ScheduleRow) -> tuple[str, ...]:
    last = f"{row.last_tick:%Y-%m-%d %H:%M}" if row.last_tick else "never yet"
    late = f"{row.lateness_ms / 1000:.1f} s" if row.lateness_ms is not None else ""
    due = f"{row.next_tick:%Y-%m-%d %H:%M}" if row.next_tick else "never"
    return row.name, row.spec, row.queue, last, late, due
