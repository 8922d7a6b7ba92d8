"""``manage.py switchyard status``: the overview in a terminal, once or repeatedly, without web and database.

And ``diagnose``: the cause that comes first, with its evidence and the smallest next step.
"""

import logging
import signal
import sys
import time
from argparse import ArgumentParser
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any, TextIO, cast

from django.core.management.base import CommandError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from switchyard.alerts.models import Alert
from switchyard.broker.stores.job_record import Job
from switchyard.console.commands import PrintingCommand, show_examples, wrong
from switchyard.console.formatting import ago, duration, size
from switchyard.console.links import runbook
from switchyard.jobs.presentation import job_json
from switchyard.jobs.queries import limit_of
from switchyard.middleware.logs import printable
from switchyard.operations.diagnosis import Diagnosis, diagnose, eaters
from switchyard.operations.findings.examine import KEPT, WHOLE_S
from switchyard.operations.findings.finding import EXIT_CODES, worst
from switchyard.operations.findings.lateness import LATE_WORDS
from switchyard.operations.overview import FACTS, Room, Verdict, overview
from switchyard.operations.queries import SHORTEST_S
from switchyard.operations.rows import Row

# Texts, or each with its level.
Cells = tuple[str | tuple[str, str], ...]

NOT_A_TERMINAL_WIDTH = 120
SHOWN_RUNNING = 12
STYLES = {"bad": "bold red", "warn": "yellow", "ok": "green"}
# Each column with the width of the terminal from which it is shown.
YARD = {"queue": 0, "state": 0, "oldest": 60, "waiting": 0, "scheduled": 72, "retry": 88, "busy/slots": 0, "dead": 0}
YARD |= {"promise": 104, "detail": 120}
POOLS = {"pool": 0, "state": 0, "busy/slots": 0, "memory": 60, "heartbeat": 0, "restarts": 72}
RUNNING = {"actor": 0, "queue": 60, "runs for": 0, "limit": 72, "job": 0, "worker": 128}
ALERTS = {"last": 0, "state": 0, "alert": 0, "times": 60}
OF_POOL = ("state", "up", "slots", "busy")
NUMBERS = frozenset({"oldest", "waiting", "scheduled", "retry", "busy/slots", "dead", "memory", "limit", "times"})

EXAMPLES = """examples:
  manage.py switchyard status                        one frame; exit 0 healthy, 1 warnings, 2 errors, as doctor
  manage.py switchyard status --watch                again and again until Ctrl-C
  manage.py switchyard status --watch --interval 10  over a slow line
  manage.py switchyard status --json                 one frame for a program"""


class Command(PrintingCommand):
    """Show the overview; without ``--watch`` one frame, with the doctor's exit codes."""

    help = "Show the overview in this terminal: the verdict, what helps, queues, pools, running jobs, alerts."
    requires_system_checks = []  # the verdict reports them itself

    def add_arguments(self, parser: ArgumentParser) -> None:
        show_examples(parser, EXAMPLES)
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--watch", action="store_true", help="show it again and again until Ctrl-C")
        form.add_argument("--json", action="store_true", help="print one frame as JSON")
        parser.add_argument("--interval", type=float, default=2.0, metavar="S", help="seconds between updates (2)")

    def handle(self, *args: Any, watch: bool, interval: float, **options: Any) -> None:
        """Print one frame and exit with the code of the worst finding, or show frames until a signal."""
        if not 0.5 <= interval <= 3_600:
            raise wrong(f"--interval: {interval:g} s; choose 0.5 to 3600 s")
        width = None if self.stdout.isatty() else NOT_A_TERMINAL_WIDTH
        no_color = options["no_color"] or None
        console = Console(file=cast(TextIO, self.stdout), width=width, highlight=False, no_color=no_color)
        if watch:
            self._watch(console, interval)
            return
        room = read_room()
        if not self.as_json:
            console.print(Group(*frame(room, console.width)))
        self.answer("", as_json(room), indent=2)
        if code := exit_code(room):
            sys.exit(code)

    def _watch(self, console: Console, interval_s: float) -> None:
        if not self.stdout.isatty() or console.is_dumb_terminal:
            raise CommandError("--watch needs a terminal that moves its cursor; leave it out for one frame")
        before = {
            number: signal.signal(number, lambda number, stack: sys.exit(128 + number))
            for number in (signal.SIGTERM, signal.SIGHUP)
        }
        self.stdout.ending = ""  # Django's ends each write with a line, which would scroll a full screen
        logging.disable()  # the screen says what a log line would say, and a line would move it
        try:
            # The screen of its own is given up on every way out, also by the SystemExit of a signal.
            with Live(console=console, screen=True, auto_refresh=False) as live:
                while True:
                    live.update(Group(*frame(overview(), console.width)), refresh=True)
                    time.sleep(interval_s)
        except KeyboardInterrupt:
            pass
        finally:
            logging.disable(logging.NOTSET)
            for number, handler in before.items():
                signal.signal(number, handler)


def read_room() -> Room:
    """Read the overview after a whole examination: one frame has no second chance to say what was not checked yet."""
    facts, _ = FACTS.read()
    began_s = time.monotonic()
    ends = began_s + WHOLE_S + 1
    while KEPT.findings() is None and time.monotonic() < ends:
        pass  # each call waits for up to 2 s
    if facts is not None and any(row.state.word == "Late" for row in facts.queue_rows):
        time.sleep(max(began_s + SHORTEST_S - time.monotonic(), 0))  # how fast it starts jobs takes two readings
    return overview()


def exit_code(room: Room) -> int:
    """Return the doctor's code: 0 healthy, 1 warnings, 2 errors."""
    return EXIT_CODES[worst([found.finding for found in room.verdict.findings])]


def frame(room: Room, width: int) -> Iterator[RenderableType]:
    """Yield the overview for a width: the page's sentences, and a table for each of its lists."""
    verdict = room.verdict
    yield Text.assemble((verdict.label, STYLES.get(verdict.level, "bold")), "  ", (_shown(verdict.sentence), "bold"))
    for word, text in (*_help(verdict), *(("Also", sentence) for sentence in room.also)):
        yield Text.assemble((f"{word}: ", "bold"), _shown(text))
    if verdict.facts:
        yield Text(_shown("   ".join(f"{number} {meaning}" for number, meaning in verdict.facts)))
    yield _title("The yard", "what waits is unknown while the broker does not answer" if room.away else "")
    if room.old_at is not None:
        yield Text(f"The last figures, of {room.old_at:%H:%M:%S} UTC:", style="dim")
    yield fitted_table(YARD, width, (_track(row) for row, _ in room.drawn_rows))
    yield _title("Running now")
    if room.running:
        yield fitted_table(RUNNING, width, map(_running, room.running[:SHOWN_RUNNING]))
    else:
        yield Text("Unknown while the broker is unavailable." if room.running is None else "Nothing runs.", style="dim")
    up = f"{room.pools_up} of {len(room.pools)} up, {room.slots} slots, {size(room.memory_bytes)}"
    yield _title("Pools", "unknown while the broker is unavailable" if room.away else up)
    yield fitted_table(POOLS, width, map(_pool, room.pools))
    yield _title("Recent alerts")
    if room.alerts:
        yield fitted_table(ALERTS, width, map(_alert, room.alerts))
    else:
        yield Text("Unknown: the database cannot be read." if room.alerts is None else "None.", style="dim")


def _help(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Yield what happens and what to do, the page's button, and the command that does the same."""
    if verdict.then and verdict.then != verdict.step:
        yield "Then", verdict.then
    if verdict.button and verdict.button.href:
        yield "On the page", f"{verdict.button.label} ({verdict.button.href})"
    if verdict.step and verdict.step not in verdict.then:
        yield "Command" if verdict.step.startswith(("manage.py", "kill")) else "Next", verdict.step
    if verdict.findings:
        yield "Steps", runbook(verdict.label)


def _shown(text: str) -> str:
    """Return a text on one line, without what would move a terminal's cursor."""
    return printable(" ".join(text.splitlines()))


def _title(title: str, note: str = "") -> Text:
    return Text.assemble("\n", (title, "bold"), (f"  {note}" if note else "", "dim"))


def fitted_table(
    columns: dict[str, int], width: int, rows: Iterable[Cells], *, numbers: Collection[str] = NUMBERS
) -> Table:
    """Return a table with one line a row, of the columns that the width has room for; ``numbers`` are never cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    kept = [least <= width for least in columns.values()]
    for title in compress(columns, kept):
        right = title in numbers
        # A column of text gives way to one of numbers; its cells stay on one line.
        table.add_column(_cell(title), justify="right" if right else "left", no_wrap=right)
    for row in rows:
        table.add_row(*map(_cell, compress(row, kept)))
    return table


def _cell(cell: str | tuple[str, str]) -> Text:
    text, level = (cell, "") if isinstance(cell, str) else cell
    return Text(_shown(text), style=STYLES.get(level, ""), no_wrap=True, overflow="ellipsis")


def _track(row: Row) -> Cells:
    known, level = row.waiting is not None, row.state.level
    return (
        f"  {row.name}" if row.kind == "lane" else row.name,
        (row.state.word, level),
        "" if row.oldest_age_ms is None else duration(row.oldest_age_ms),
        f"{row.waiting:,}" if known else "unknown",
        f"{row.held:,}" if known else "",
        "" if row.retrying is None else f"{row.retrying:,}",
        f"{row.busy}/{row.slots}" if known else "",
        ("" if row.dead is None else f"{row.dead:,}", "bad" if row.dead else ""),
        row.promise,
        (row.state.detail, level),
    )


def _running(job: Job) -> Cells:
    run_ms, limit_ms = job.run_ms, limit_of(job)
    ran, limit = "unknown" if run_ms is None else duration(run_ms), duration(limit_ms) if limit_ms else "–"
    is_over_limit = bool(limit_ms) and (run_ms or 0) > (limit_ms or 0)
    return (job.actor, job.queue, (ran, "warn" if is_over_limit else ""), limit, job.id, job.holder.name)


def _pool(pool: dict[str, Any]) -> Cells:
    state, beat, name, restarts = pool["state"], pool["beat_at"], pool["name"], pool["restarts"]
    beat = ago(beat) if beat else "–"
    if state is None or not state.up:
        return (name, ("unknown", "") if state is None else (state.state, "bad"), "–", "–", beat, restarts)
    busy = f"{state.busy}/{state.slots}"
    shown = ("child silent", "warn") if state.silent_children else (state.state, "ok")
    return (name, shown, busy, size(state.memory_bytes), beat, restarts)


def _alert(alert: Alert) -> Cells:
    level = {"open": "bad", "resolved": "ok"}.get(alert.state, "warn")
    return (ago(alert.last_at), (alert.get_state_display().lower(), level), alert.title, f"{alert.count:,}")


def as_json(room: Room) -> dict[str, Any]:
    """Return the JSON shape documented in docs/reference/commands.md."""
    verdict = room.verdict
    return {
        "at": room.at.isoformat(timespec="microseconds"),
        "exit_code": exit_code(room),
        "verdict": {
            **{name: getattr(verdict, name) for name in ("level", "label", "sentence", "then")},
            "button": verdict.button.label if verdict.button else "",
            "next": verdict.step,
            "steps": runbook(verdict.label) if verdict.findings else "",
        },
        "also": list(room.also),
        "queues": [_row(row) for row, _ in room.rows],
        "pools": [
            {"pool": pool["name"]} | {name: getattr(pool["state"], name, None) for name in OF_POOL}
            for pool in room.pools
        ],
        "running": None if room.running is None else [job_json(job) for job in room.running],
        "alerts": None if room.alerts is None else list(map(_alert_json, room.alerts)),
    }


def _alert_json(alert: Alert) -> dict[str, Any]:
    return {"id": alert.pk, "state": alert.state, "title": alert.title, "count": alert.count}


def _row(row: Row) -> dict[str, Any]:
    same = ("promise", "waiting", "oldest_age_ms", "ratio", "retrying", "dead", "slots")
    state = {"state": row.state.word, "level": row.state.level, "detail": row.state.detail}
    held = {"scheduled": row.held if row.waiting is not None else None, "slots_busy": row.busy}
    return {"name": row.name, "kind": row.kind, **state, **held} | {name: getattr(row, name) for name in same}


class Diagnose(PrintingCommand):
    """Name the cause of what is wrong; exit 0 when healthy, 1 for warnings, 2 for errors."""

    help = "Name the cause of what is wrong now, with its evidence, how sure it is, and the next step."
    requires_system_checks = []  # they are among the findings
    examples = """examples:
  manage.py switchyard diagnose
  manage.py switchyard diagnose --json      for a program; exit 0 healthy, 1 warnings, 2 errors"""

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the causes, and exit with the code of the worst finding."""
        room = read_room()
        told, code = causes_of(room), exit_code(room)
        shown, taken = [each.as_json() for each in told], eaters()
        value = {"exit_code": code, "diagnosis": shown[0] if shown else None, "others": shown[1:], "takes_most": taken}
        self.answer(map(printable, (*lines(told, room), *most_taken(taken))), value, indent=2)
        if code:
            sys.exit(code)


def causes_of(room: Room) -> list[Diagnosis]:
    late = [(row, drawn) for row, drawn in room.rows if row.kind == "queue" and row.state.word in LATE_WORDS]
    holders = {row.queue: drawn.holder for row, drawn in late}
    return diagnose(room.verdict.findings, {row.queue: row for row, _ in late}, holders)


def most_taken(taken: Mapping[str, Sequence[tuple[str, float]]]) -> Iterator[str]:
    """Yield who takes most of the run time, of the processors and of SQL, as :func:`eaters` returns them."""
    for kind, actors in taken.items():
        if actors:
            shares = ", ".join(f"{actor} {share:.0%}".replace("%", " %") for actor, share in actors)
            yield f"Most {'run time' if kind == 'run' else 'SQL' if kind == 'sql' else kind}, last 2 min: {shares}"


def lines(told: list[Diagnosis], room: Room) -> Iterator[str]:
    """Yield the first cause with all that is known of it, and a line for each further one."""
    if not told:
        yield f"No cause of late or failing jobs. {room.verdict.sentence}"
        return
    first, *others = told
    yield f"{first.title} ({first.confidence:.0%} sure)".replace("%", " %")
    yield f"  {first.said}"
    for name, text in (("evidence", first.evidence), ("next", first.next), ("page", first.link)):
        if text:
            yield f"  {name:9} {text}"
    for each in others:
        yield f"Then: {each.title.lower()}: {each.said}"
