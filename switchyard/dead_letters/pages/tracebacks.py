"""Lines of a traceback for a page, the frame of the project's own code marked."""

from __future__ import annotations

import re
from dataclasses import dataclass

from switchyard.conf import switchyard_settings
from switchyard.dead_letters.presentation import INSTALLED, short_paths

FRAME = re.compile(r'^  File "([^"\n]*)", line (\d+), in (.*)$')


@dataclass(frozen=True, slots=True)
class TracebackLine:
    """One line; ``is_own`` marks the innermost frame of the project's own code."""

    text: str
    is_own: bool = False


def marked(traceback: str) -> list[TracebackLine]:
    """Return a traceback's lines with short paths. Nothing is marked where no frame is the project's own."""
    lines = traceback.splitlines()
    own = _own_frame(lines)
    end = own + 1 if own is not None else 0
    while own is not None and end < len(lines) and lines[end].startswith("    "):
        end += 1
    return [
        TracebackLine(short_paths(line), own is not None and own <= number < end) for number, line in enumerate(lines)
    ]


def own_frame(traceback: str) -> str:
    """Return the innermost frame of the project's own code, ``reports/services.py:88 lines_of``, or ""."""
    lines = traceback.splitlines()
    number = _own_frame(lines)
    found = FRAME.match(short_paths(lines[number])) if number is not None else None
    return f"{found[1]}:{found[2]} {found[3]}" if found else ""


def _own_frame(lines: list[str]) -> int | None:
    inside = f'File "{switchyard_settings().base_dir}/'
    own = [
        number
        for number, line in enumerate(lines)
        if FRAME.match(line) and inside in line and not INSTALLED.search(line)
    ]
    return own[-1] if own else None
