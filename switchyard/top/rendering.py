"""Pages as lines of styled text, for a width: the same for one printed frame and for the live screen."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import Final

from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from switchyard.middleware.logs import printable
from switchyard.operations.diagnosis import Verdict
from switchyard.top.text_page import TextCell, TextPage, TextRow, TextSection

Line = list[Segment]
STYLES: Final = {"bad": "bold red", "warn": "yellow", "ok": "green", "calm": "dim", "": ""}
CHOSEN: Final = "reverse"
GAP: Final = 2
# From this width on ids are shown whole, as commands take them.
WHOLE_IDS: Final = 140
SHORT_ID: Final = 8


def shown(text: str) -> str:
    """Return a text on one line, without what would move a terminal's cursor."""
    return printable(" ".join(text.splitlines()))


def verdict_text(verdict: Verdict) -> Text:
    """Return the verdict's word and sentence."""
    return Text.assemble((f"{verdict.label}", STYLES[verdict.level] or "bold"), "  ", (shown(verdict.sentence), "bold"))


def section_parts(section: TextSection, width: int, chosen: int | None = None) -> Iterator[RenderableType]:
    """Yield what a section consists of: title, lines, and a table whose rows have one line each.

    Args:
        chosen: Index of the row that an operator chose.
    """
    if section.title:
        note = f"  {shown(section.note)}" if section.note else ""
        yield Text.assemble((section.title, "bold"), (note, "dim"))
    for line in section.lines:
        yield _line(line)
    if section.rows:
        yield _table(section, width, chosen)
    elif section.empty and not section.lines:
        yield Text(shown(section.empty), style="dim")


def rendered(part: RenderableType, width: int) -> list[Line]:
    """Return a part as lines of at most this width."""
    console = Console(
        file=StringIO(), width=width, color_system="standard", force_terminal=True, legacy_windows=False, _environ={}
    )
    return console.render_lines(part, console.options.update(width=width), pad=False)


def body(page: TextPage, width: int, chosen: int | None = None) -> tuple[list[Line], list[int]]:
    """Return a page below its verdict as lines, and the line of each row."""
    lines: list[Line] = []
    row_lines: list[int] = []
    first = 0
    for section in page.sections:
        if lines:
            lines.append([])
        mine = None if chosen is None or not 0 <= chosen - first < len(section.rows) else chosen - first
        for part in section_parts(section, width, mine):
            lines += rendered(part, width)
        if section.rows:
            row_lines += range(len(lines) - len(section.rows), len(lines))
        first += len(section.rows)
    return lines, row_lines


def _line(line: str) -> Text:
    word, colon, rest = line.partition(": ")
    if colon and word in ("Then", "Also", "Command", "Next", "On the page", "Steps"):
        return Text.assemble((f"{word}: ", "bold"), shown(rest))
    return Text(shown(line), overflow="fold")


def _table(section: TextSection, width: int, chosen: int | None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim", show_edge=False)
    kept = [at for at, column in enumerate(section.columns) if column.from_width <= width]
    for at in kept:
        column = section.columns[at]
        table.add_column(
            Text(column.title, no_wrap=True, overflow="ellipsis"),
            justify="right" if column.right else "left",
            # A column of text gives way; its cells stay on one line.
            no_wrap=column.right,
        )
    for number, row in enumerate(section.rows):
        table.add_row(*_cells(section, row, kept, width), style=CHOSEN if number == chosen else "")
    return table


def _cells(section: TextSection, row: TextRow, kept: list[int], width: int) -> Iterator[Text]:
    for at in kept:
        cell = row.cells[at]
        found = cell if isinstance(cell, TextCell) else TextCell(cell)
        text = found.text[:SHORT_ID] if section.columns[at].is_id and width < WHOLE_IDS else found.text
        yield Text(shown(text), style=STYLES[found.level], no_wrap=True, overflow="ellipsis")
