"""Rows of the history, made for tests."""

from __future__ import annotations

import uuid
from typing import Any

from switchyard.broker.clock import now_ms
from switchyard.history.models import JobRow, SearchValue

# Yesterday: older jobs leave the history.
BASE_MS = now_ms() - 86_400_000


def job_row(at: int = 0, *, state: str = "succeeded", values: dict[str, str] | None = None, **columns: Any) -> JobRow:
    """Write a row of a job that ended ``at`` milliseconds after :data:`BASE_MS`."""
    finished_at = BASE_MS + at
    bad = state not in ("succeeded", "retrying")
    defaults: dict[str, Any] = {
        "job_id": str(uuid.uuid4()), "sequence": 12, "actor": "work", "queue": "default", "lane": "default",
        "attempts": 1, "generation": 0, "finished_at": finished_at,
        "not_succeeded_at": None if state == "succeeded" else finished_at,
        "failed_at": finished_at if bad or state == "retrying" else None,
    }  # fmt: skip
    row = JobRow.objects.create(**defaults | {"state": state} | columns)
    for name, value in (values or {}).items():
        SearchValue.objects.create(name=name, value=value, job_id=row.job_id, finished_at=finished_at)
    return row
