"""``manage.py switchyard schedules``: list, show, run, pause, resume, export and import."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from switchyard.audit.services import Who
from switchyard.broker.errors import ArgumentsRefused
from switchyard.console.commands import ActsCommand, table, wrong
from switchyard.console.formatting import counted, iso, parse_until
from switchyard.middleware.logs import printable_lines
from switchyard.schedules import queries, services
from switchyard.schedules.models import ScheduleState
from switchyard.schedules.queries import periodic_tasks
from switchyard.schedules.rows import exported, stored_schedules

HEADINGS = ("schedule", "when", "zone", "queue", "last (UTC)", "late", "next (UTC)", "state")


EXAMPLES = """examples:
  manage.py switchyard schedules list
  manage.py switchyard schedules show purge_delivery_attempts     with its last ticks
  manage.py switchyard schedules run purge_delivery_attempts      now, independent of its ticks; prints the job's id
  manage.py switchyard schedules pause purge_delivery_attempts --until 2h --reason "the table is being rebuilt"
  manage.py switchyard schedules resume purge_delivery_attempts
  manage.py switchyard schedules export                           the stored ones, as JSON
  manage.py switchyard schedules import schedules.json            makes and changes; safe to repeat
  manage.py switchyard schedules import --from celery-beat --actor news.tasks.fetch=fetch_feeds"""


class Command(ActsCommand):
    """List the schedules, show one, run one now, pause or resume one; export and import the stored ones."""

    help = "List the schedules; show, run, pause or resume one; export and import the stored ones."
    examples, subject = EXAMPLES, "schedules"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        add("list", help="every schedule, with its last tick and its next")
        show = add("show", help="one schedule with its last ticks")
        run = add("run", help="enqueue a schedule's job now, independent of its ticks")
        pause = add("pause", help="send none of a schedule's ticks; they are missed")
        resume = add("resume", help="send its ticks again, from the next one on")
        for each in (show, run, pause, resume):
            each.add_argument("name", metavar="NAME", help="name of the schedule, see list")
        for each in (run, pause, resume):
            each.add_argument("--reason", metavar="TEXT", default="", help="why, for the audit log")
        pause.add_argument("--until", metavar="TIME", help="2h, 14:00 or ISO 8601 in UTC; without it until resumed")
        add("export", help="print every stored schedule as JSON")
        importing = add("import", help="make and change stored schedules; 1 if any of them was left out")
        importing.add_argument("file", metavar="FILE", nargs="?", help="JSON of export; - for standard input")
        importing.add_argument("--from", dest="source", choices=["celery-beat"], help="its tables in this database")
        text = "actor that does the work of a Celery task; by default that of the same name"
        importing.add_argument("--actor", dest="actors", metavar="TASK=ACTOR", action="append", default=[], help=text)
        importing.add_argument("--reason", metavar="TEXT", default="", help="why, for the audit log")

    def act(self, options: dict[str, Any]) -> None:
        verb = options["verb"]
        self.as_json = self.as_json or verb == "export"
        answer, text = getattr(self, f"_{verb}")(**options)
        self.answer(printable_lines(text), json.loads(json.dumps(answer, default=iso)), indent=2)
        if verb == "import" and answer["left"]:
            raise CommandError(f"{counted(len(answer['left']), 'schedule')} left out; the others are stored")

    def _list(self, **options: Any) -> tuple[Any, str]:
        rows = queries.overview(timezone.now())
        for name, fault in stored_schedules()[1].items():
            self.stderr.write(f"{name} is not sent: {fault}")
        if rows and not self.as_json:
            self.stderr.write(f"schedules: {queries.headline(rows, queries.scheduler_leads())}.")
        none = "no schedules; declare one with periodic=cron(…), or make one in the room"
        return list(map(dataclasses.asdict, rows)), table(HEADINGS, map(_cells, rows)) or none

    def _run(self, *, name: str, reason: str, **options: Any) -> tuple[Any, str]:
        job_id = services.run_now(name, who=Who.of_command(), reason=reason)
        return {"id": job_id}, job_id

    def _pause(self, *, name: str, reason: str, until: str | None, **options: Any) -> tuple[Any, str]:
        end = parse_until(until) if until else None
        services.pause(name, who=Who.of_command(), reason=reason, until=end)
        row = _row(name)
        return dataclasses.asdict(row), f"{name} is {_state(row)}; its ticks are not sent, then or later"

    def _resume(self, *, name: str, reason: str, **options: Any) -> tuple[Any, str]:
        missed = services.resume(name, who=Who.of_command(), reason=reason)
        row = _row(name)
        answer = {"name": name, "resumed": missed is not None, "missed": missed or 0, "next_tick": row.next_tick}
        if missed is None:
            return answer, f"{name} was not paused"
        return answer, f"{name} is resumed; it missed {counted(missed, 'tick')}, which will not be sent"

    def _show(self, *, name: str, **options: Any) -> tuple[Any, str]:
        row, ticks = _row(name), queries.last_ticks(name)
        fields = ("due_at", "outcome", "lateness_ms", "job_id", "by")
        shown = [{field: getattr(tick, field) for field in fields} for tick in ticks]
        answer = dataclasses.asdict(row) | {"ticks": shown}
        lines = [table(HEADINGS, [_cells(row)]), "", *([row.pause_words, ""] if row.pause_words else [])]
        for tick in ticks:
            late = f"{tick.lateness_ms / 1000:.1f} s late" if tick.lateness_ms is not None else ""
            lines.append(f"{tick.due_at:%Y-%m-%d %H:%M}  {tick.outcome:8} {late:12} {tick.job_id} {tick.by}".rstrip())
        return answer, "\n".join(lines if ticks else [*lines, "no tick is kept yet"])

    def _export(self, **options: Any) -> tuple[Any, str]:
        return exported(), ""

    def _import(
        self, *, file: str | None, source: str | None, actors: list[str], reason: str, **options: Any
    ) -> tuple[Any, str]:
        if (file is None) == (source is None):
            raise wrong("schedules import: write FILE, or --from celery-beat")
        items, left = periodic_tasks(dict(_pair(text) for text in actors)) if source else (_read(file or "-"), {})
        stored: dict[str, bool] = {}
        for number, item in enumerate(items):
            name = str(item.get("name", number) if isinstance(item, dict) else number)
            try:
                stored[name] = services.import_row(item, who=Who.of_command(), reason=reason)
            except ArgumentsRefused as error:
                left[name] = str(error)
        lines = [f"{name}: {'stored' if changed else 'unchanged'}" for name, changed in stored.items()]
        answer = {"stored": [name for name, changed in stored.items() if changed], "left": left}
        return answer, "\n".join([*lines, *(f"{name}: left out: {why}" for name, why in left.items())])


def _read(file: str) -> list[Any]:
    try:
        items = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise wrong(f"schedules import: {file} cannot be read: {error}") from error
    if not isinstance(items, list):
        raise wrong(f"schedules import: {file} has no JSON list; compare schedules export")
    return items


def _pair(text: str) -> tuple[str, str]:
    task, _, actor = text.partition("=")
    if not task or not actor:
        raise wrong(f"schedules import: --actor {text!r:.200} is not TASK=ACTOR")
    return task, actor


def _row(name: str) -> queries.ScheduleRow:
    state = ScheduleState.objects.filter(actor=name).first()
    return queries.row_of(services.find(name), state, timezone.now())


def _cells(row: queries.ScheduleRow) -> tuple[str, ...]:
    last = f"{row.last_tick:%Y-%m-%d %H:%M}" if row.last_tick else "never yet"
    late = f"{row.lateness_ms / 1000:.1f} s" if row.lateness_ms is not None else ""
    due = f"{row.next_tick:%Y-%m-%d %H:%M}" if row.next_tick else "when resumed" if row.paused_at else "never"
    return row.name, row.spec, row.time_zone, row.queue, last, late, due, _state(row)


def _state(row: queries.ScheduleRow) -> str:
    if row.paused_at is None:
        return "on"
    until = f" until {row.paused_until:%Y-%m-%d %H:%M}" if row.paused_until else ""
    reason = f" ({row.paused_reason})" if row.paused_reason else ""
    return f"paused by {row.paused_by}{until}{reason}, {row.missed:,} missed"
