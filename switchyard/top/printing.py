"""One frame of the overview: printed, or as JSON."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

from switchyard.console.runbook import runbook
from switchyard.operations.findings.examine import KEPT, WHOLE_S
from switchyard.operations.findings.finding import EXIT_CODES, worst
from switchyard.operations.overview import Room, overview
from switchyard.operations.rows import Row
from switchyard.top.overview_page import overview_page
from switchyard.top.rendering import section_parts, verdict_text


def read_room() -> Room:
    """Read the overview after a whole examination: one frame has no second chance to say what was not checked yet."""
    ends = time.monotonic() + WHOLE_S + 1
    while KEPT.findings() is None and time.monotonic() < ends:
        pass  # each call waits for up to 2 s
    return overview()


def exit_code(room: Room) -> int:
    """Return the doctor's code: 0 healthy, 1 warnings, 2 errors."""
    return EXIT_CODES[worst([found.finding for found in room.verdict.findings])]


def print_frame(room: Room, console: Console) -> None:
    """Print the overview."""
    console.print(verdict_text(room.verdict))
    for section in overview_page(room).sections:
        console.print()
        for part in section_parts(section, console.width):
            console.print(part)


def as_json(room: Room) -> dict[str, Any]:
    """Return the JSON shape documented in docs/reference/commands.md."""
    verdict = room.verdict
    return {
        "at": room.at.isoformat(timespec="microseconds"),
        "exit_code": exit_code(room),
        "verdict": {
            "level": verdict.level,
            "label": verdict.label,
            "sentence": verdict.sentence,
            "then": verdict.then,
            "button": verdict.action,
            "next": verdict.step,
            "steps": runbook(verdict.label) if verdict.findings else "",
        },
        "also": list(room.also),
        "queues": [_row(row) for row, _ in room.rows],
        "pools": [
            {
                "pool": pool.name,
                "state": pool.state.state if pool.state else None,
                "up": pool.state.up if pool.state else None,
                "slots": pool.state.slots if pool.state else None,
                "busy": pool.state.busy if pool.state else None,
            }
            for pool in room.pools
        ],
        "running": None
        if room.running is None
        else [
            {"id": job.id, "actor": job.actor, "queue": job.queue, "worker": job.holder.name, "ran_ms": job.ran_ms}
            for job in room.running
        ],
        "alerts": None
        if room.alerts is None
        else [
            {"id": alert.pk, "state": alert.state, "title": alert.title, "count": alert.count} for alert in room.alerts
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "state": row.state.word,
        "level": row.state.level,
        "detail": row.state.detail,
        "promise": row.promise,
        "waiting": row.waiting,
        "later": row.held if row.waiting is not None else None,
        "oldest_age_ms": row.oldest_age_ms,
        "ratio": row.ratio,
        "retrying": row.retrying,
        "dead": row.dead,
        "slots": row.slots,
        "slots_busy": row.busy,
    }
