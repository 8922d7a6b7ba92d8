"""Rows of the history, made for tests."""

from typing import Any

from switchyard.broker.clock import now_ms
from switchyard.history.models import JobRow, SearchValue
from tests.integration.jobs import history_rows

# Yesterday: older jobs leave the history.
BASE_MS = now_ms() - 86_400_000


def job_row(at: int = 0, *, state: str = "succeeded", values: dict[str, str] | None = None, **columns: Any) -> JobRow:
    """Write a row of a job that ended ``at`` milliseconds after :data:`BASE_MS`."""
    finished_at = BASE_MS + at
    known: dict[str, Any] = {"actor": "work", "failed_at": None if state == "succeeded" else finished_at}
    known |= dict.fromkeys(("enqueued_at", "started_at", "wait_ms", "run_ms"))
    row = history_rows.job_row(**known | {"state": state, "finished_at": finished_at} | columns)
    for name, value in (values or {}).items():
        SearchValue.objects.create(name=name, value=value, job_id=row.job_id, finished_at=finished_at)
    return row
