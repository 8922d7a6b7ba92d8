"""Rows of the history for tests of lists and passports."""

import uuid
from typing import Any

from switchyard.broker.clock import now_ms
from switchyard.history.models import JobRow


def job_row(**columns: Any) -> JobRow:
    """Write a job that succeeded a second ago."""
    now = now_ms()
    finished_at = columns.get("finished_at", now - 1_000)
    known: dict[str, Any] = {
        "job_id": str(uuid.uuid4()), "sequence": 12, "state": "succeeded", "actor": "probe_add", "queue": "default",
        "lane": "default", "attempts": 1, "generation": 0, "enqueued_at": finished_at - 3_000,
        "started_at": finished_at - 2_000, "finished_at": finished_at, "wait_ms": 1_000, "run_ms": 2_000,
    }  # fmt: skip
    known |= columns
    if known["state"] != "succeeded":
        known.setdefault("not_succeeded_at", finished_at)
    return JobRow.objects.create(**known)
