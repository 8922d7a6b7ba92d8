"""Rows of the history as JSON: of commands, of the API, and as the record of a job that has left the broker."""

from __future__ import annotations

import json
from typing import Any

from switchyard.broker.clock import datetime_of
from switchyard.history.models import AttemptRow, JobRow

TIMES = ("enqueued_at", "started_at", "finished_at", "failed_at")


def job_row_body(row: JobRow) -> dict[str, Any]:
    """Return a job as JSON: times in ISO 8601 (UTC), durations in ms, no result."""
    return {
        "id": row.job_id,
        **{name: getattr(row, name) for name in ("state", "reason", "actor", "queue", "lane", "owner")},
        **{name: getattr(row, name) for name in ("attempts", "generation")},
        **{name: iso_time(getattr(row, name)) for name in TIMES},
        **{name: getattr(row, name) for name in ("wait_ms", "run_ms", "pool", "worker", "release")},
        "error": error_of(row),
        **{name: getattr(row, name) for name in ("fingerprint", "parent", "request_id", "user", "schedule", "tags")},
        "arguments": arguments_of(row),
    }


def attempt_body(row: AttemptRow) -> dict[str, Any]:
    """Return an attempt as JSON."""
    return {
        **{name: getattr(row, name) for name in ("generation", "attempt", "state", "reason")},
        **{name: iso_time(getattr(row, name)) for name in ("started_at", "finished_at")},
        **{name: getattr(row, name) for name in ("lane", "pool", "worker", "release")},
        "error": error_of(row),
        **{name: getattr(row, name) for name in ("fingerprint", "logs")},
    }


def error_of(row: JobRow | AttemptRow) -> dict[str, str] | None:
    """Return the failure of a row, or ``None`` where it has none."""
    return {"type": row.error_type, "message": row.error_message} if row.error_type else None


def arguments_of(row: JobRow) -> Any:
    """Return the arguments by name; as text where they were cut, ``None`` where there are none."""
    try:
        return json.loads(row.arguments) if row.arguments else None
    except ValueError:
        return row.arguments


def iso_time(at_ms: int | None) -> str | None:
    """Return a time as ISO 8601 with milliseconds, as pages and the API show it."""
    if at_ms is None:
        return None
    return datetime_of(at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
