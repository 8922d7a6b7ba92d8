"""``manage.py retention``: what is kept, how much of it, since when and for how long."""

from __future__ import annotations

from typing import Any

from django.template.defaultfilters import filesizeformat

from apps.retention.queries import KeptKind, as_json, kept_kinds, removals_left
from switchyard.console.commands import PrintingCommand, as_command_error
from switchyard.console.formatting import counted

EXAMPLES = """examples:
  manage.py retention                          each kind: count, size, oldest, days, last run
  manage.py retention --json                   the same for a program"""


class Command(PrintingCommand):
    """Show what is kept, as the page of the room does. Changes nothing."""

    help = "Show what is kept beside the jobs: how much, since when, for how long."
    examples = EXAMPLES

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error("retention"):
            found, left = kept_kinds(), removals_left()
        lines = list(map(_line, found))
        lines += [f"{counted(left, 'file')} still to be removed; the next run does it"] if left else []
        self.answer(lines, {"kinds": list(map(as_json, found)), "removals_left": left}, indent=2)


def _line(kept: KeptKind) -> str:
    state, days = kept.state, f"kept for {counted(kept.days, 'day')}" if kept.days else "kept for good"
    error = f"; failed: {state.error}" if state is not None and state.error else ""
    if state is None or state.ended_at is None:
        return f"{kept.kind.name:<16} {days}, no run has ended yet{error}"
    size = "" if state.size_bytes is None else f", {filesizeformat(state.size_bytes)}".replace("\xa0", " ")
    oldest = f", oldest {state.oldest_at:%Y-%m-%d %H:%M} UTC" if state.oldest_at else ""
    removed = f", {state.removed:,} removed" if state.removed else ""
    ended = f"last run {state.ended_at:%Y-%m-%d %H:%M} UTC"
    return f"{kept.kind.name:<16} {state.count:,}{size}{oldest}, {days}; {ended}{removed}{error}"
