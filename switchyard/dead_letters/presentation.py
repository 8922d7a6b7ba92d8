"""Dead letters as JSON and as terminal output."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from switchyard.broker.clock import datetime_of
from switchyard.broker.shapes import Unreadable
from switchyard.conf import switchyard_settings
from switchyard.console.commands import table
from switchyard.console.formatting import counted, cut, plain_values
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.queries import LetterGroup, hex_dump, shown_bytes
from switchyard.middleware.logs import printable_lines

LONGEST_FAILURE = 60
INSTALLED = re.compile(r'File "[^"\n]*/(?:site-packages|lib/python3\.\d+)/')
LISTED_BYTES = 128


def short_paths(traceback: str) -> str:
    """Shorten the file paths of a traceback: relative to the project's root, or to the installed package."""
    return INSTALLED.sub('File "', traceback).replace(f'File "{switchyard_settings().base_dir}/', 'File "')


def why_given_up(row: DeadLetter) -> str:
    """Return what happened to a letter's message, after its actor's name: ``was given up after 6 attempts, …``."""
    return _WHY.get(row.reason, "was given up").format(counted(row.attempts, "attempt"))


_WHY = {
    "exhausted": "was given up after {}, the maximum of its retry policy",
    "permanent": "was given up: this failure is never retried",
    "time_limit": "was given up: it ran past its time limit",
    "poison": "was given up: it killed its worker repeatedly",
    "suspected_poison": "was given up: its pool ended repeatedly while it ran alone",
}


def summary(row: DeadLetter) -> dict[str, Any]:
    """Return the list entry of a letter as a JSON value."""
    what = ("queue", "actor", "state", "reason", "exception", "error", "attempts", "deaths", "fingerprint")
    return {"id": row.message_id} | plain_values(row, *what, "enqueued_at", "died_at")


def detail(row: DeadLetter) -> dict[str, Any]:
    """Return all columns of a letter as a JSON value."""
    return summary(row) | plain_values(row, "duration_ms", "traceback", "payload", "history")


def unreadable_summary(item: Unreadable) -> dict[str, Any]:
    """Return a quarantined message as a JSON value, its bytes in hexadecimal."""
    seen_at = datetime_of(item.seen_at).isoformat(timespec="microseconds")
    values = plain_values(item, "id", "queue", "error", "size_bytes")
    return values | {"seen_at": seen_at, "raw_hex": shown_bytes(item).hex()}


def group_summary(group: LetterGroup) -> dict[str, Any]:
    """Return a group of letters as a JSON value; ``new`` are those that nobody has acknowledged."""
    of = ("fingerprint", "actor", "queue", "exception", "letters", "new", "first_at", "last_at")
    return plain_values(group, *of)


GROUP_TITLES = ("group", "letters", "new", "actor", "queue", "failure", "first (UTC)", "last (UTC)")
LETTER_TITLES = ("id", "queue", "actor", "failure", "reason", "tries", "died (UTC)", "state", "group")


def groups_text(found: Sequence[LetterGroup]) -> str:
    rows = (
        (
            group.fingerprint, f"{group.letters:,}", f"{group.new:,}", group.actor, group.queue, group.exception,
            f"{group.first_at:%Y-%m-%d %H:%M:%S}", f"{group.last_at:%Y-%m-%d %H:%M:%S}",
        )
        for group in found
    )  # fmt: skip
    return table(GROUP_TITLES, rows) or "No dead letters."


def letters_text(found: Sequence[DeadLetter]) -> str:
    rows = (
        (
            row.message_id, row.queue, row.actor, cut(f"{row.exception}: {row.error}", LONGEST_FAILURE), row.reason,
            str(row.attempts), f"{row.died_at:%Y-%m-%d %H:%M:%S}", row.state, row.fingerprint[:16],
        )
        for row in found
    )  # fmt: skip
    return table(LETTER_TITLES, rows) or "No dead letters."


def unreadable_text(items: Sequence[Unreadable]) -> str:
    """Return quarantined messages with their first bytes, as lines."""
    lines: list[str] = []
    for item in items:
        lines.append(f"{item.id}  {item.queue}  {item.size_bytes} bytes  {item.error}")
        lines.append(hex_dump(shown_bytes(item)[:LISTED_BYTES]))
        if len(item.raw) > LISTED_BYTES:
            lines.append(f"… {len(item.raw) - LISTED_BYTES:,} bytes more with --json")
    return printable_lines("\n".join(lines)) or "No quarantined messages."


def letter_text(row: DeadLetter) -> str:
    """Return what is known of a letter, its traceback, its message and its history, as lines."""
    facts = (
        ("job", row.message_id),
        ("actor", f"{row.actor} on {row.queue}"),
        ("state", row.state),
        ("failed", f"{row.exception}: {row.error}"),
        ("reason", row.reason),
        ("why", f"{row.actor} on {row.queue} {why_given_up(row)}"),
        ("attempts", f"{row.attempts}, the last took {row.duration_ms} ms"),
        ("enqueued", _moment(row.enqueued_at)),
        ("died", _moment(row.died_at)),
        ("group", row.fingerprint),
    )
    lines = [f"{name:<9} {value}" for name, value in facts]
    lines += ["", short_paths(row.traceback), json.dumps(row.payload, indent=2, ensure_ascii=False)]
    for entry in row.history:
        at = _moment(datetime.fromisoformat(entry["at"]))
        lines.append(" ".join(filter(None, (at, entry["act"], entry["by"] and f"by {entry['by']}", entry["note"]))))
    return printable_lines("\n".join(lines))


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


FRAME = re.compile(r'^  File "([^"\n]*)", line (\d+), in (.*)$')


def marked(traceback: str) -> list[tuple[str, bool]]:
    """Return a traceback's lines with short paths, and whether each is of the innermost frame of the project's code."""
    lines = traceback.splitlines()
    own = _own_frame(lines)
    end = len(lines) if own is None else own + 1
    while end < len(lines) and lines[end].startswith("    "):
        end += 1
    return [(short_paths(line), own is not None and own <= number < end) for number, line in enumerate(lines)]


def own_frame(traceback: str) -> str:
    """Return the innermost frame of the project's own code, ``reports/services.py:88 lines_of``, or ""."""
    lines = traceback.splitlines()
    number = _own_frame(lines)
    found = FRAME.match(short_paths(lines[number])) if number is not None else None
    return f"{found[1]}:{found[2]} {found[3]}" if found else ""


def _own_frame(lines: list[str]) -> int | None:
    inside = f'File "{switchyard_settings().base_dir}/'
    for number in reversed(range(len(lines))):
        if FRAME.match(lines[number]) and inside in lines[number] and not INSTALLED.search(lines[number]):
            return number
    return None
