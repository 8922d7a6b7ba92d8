"""Fields of job records: checked where they are reported, and read so that a strange record is still shown."""

from __future__ import annotations

import json
import math
from numbers import Real
from typing import Any, Final

from switchyard.broker.queue.codec import LARGEST

LONGEST_NOTE: Final = 500
LARGEST_COUNT: Final = 2**53


def progress_of(done: Any, total: Any, note: Any) -> dict[str, Any]:
    """Return progress as it is recorded: whole numbers, and a note of at most 500 characters.

    Raises:
        ValueError: ``done`` or ``total`` is no finite number.
    """
    return {"done": _count("done", done), "total": _count("total", total), "note": _note(note)}


def read_progress(text: str | None) -> dict[str, Any] | None:
    """Return a record's progress, or ``None`` without one that can be shown."""
    found = read_json(text)
    if not isinstance(found, dict):
        return None
    try:
        return progress_of(found.get("done"), found.get("total"), found.get("note"))
    except ValueError:
        return None


def read_json(text: str | None) -> Any:
    """Return a value kept as JSON; ``None`` for no value and for what is no JSON."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def read_number(text: str | None) -> int | None:
    """Return a whole number from 0 to the last millisecond of the year 9999, or ``None``."""
    try:
        number = int(float(text)) if text else -1
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= LARGEST else None


def _count(name: str, value: Any) -> int:
    is_number = isinstance(value, Real)  # those of other libraries too
    if not is_number or not -LARGEST_COUNT <= value <= LARGEST_COUNT or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r:.100}, no finite number; write report_progress(3, 10, 'a note')")
    return int(value)


def _note(value: Any) -> str:
    note = "" if value is None else str(value)[:LONGEST_NOTE]
    return str(note.encode("utf-8", "replace"), "utf-8")
