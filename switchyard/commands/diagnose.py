"""``manage.py switchyard diagnose``: the cause that comes first, with its evidence and the smallest next step."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from switchyard.commands.status import exit_code, read_room
from switchyard.console.commands import PrintingCommand
from switchyard.middleware.logs import printable
from switchyard.operations.diagnosis import Diagnosis, diagnose, eaters
from switchyard.operations.findings.lateness import LATE_WORDS
from switchyard.operations.overview import Room

EXAMPLES = """examples:
  manage.py switchyard diagnose
  manage.py switchyard diagnose --json      for a program; exit 0 healthy, 1 warnings, 2 errors"""


class Command(PrintingCommand):
    """Name the cause of what is wrong; exit 0 when healthy, 1 for warnings, 2 for errors."""

    help = "Name the cause of what is wrong now, with its evidence, how sure it is, and the next step."
    requires_system_checks = []  # they are among the findings
    examples = EXAMPLES

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
