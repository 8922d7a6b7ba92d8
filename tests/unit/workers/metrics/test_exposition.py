"""Supervisors' reports as metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.workers import metrics


def report(*, ready: bool = True, restarts: dict[str, int] | None = None) -> PoolReport:
    child: dict[str, Any] = {"pid": 10, "ready": ready, "busy": 1, "done": 5, "rss_bytes": 1000}
    return PoolReport(
        pool="urgent", host="a", pid=9, kind="threads", slots=4, busy=1, started_at=0, beat_at=0, state="up",
        children=[child], restarts=restarts or {},
    )  # fmt: skip


def text_of(report: PoolReport) -> list[str]:
    text = metrics.exposition(Path("no folder"), report, 2_000).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.fixture(autouse=True)
def container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "memory_here", lambda: 5_000)


def test_a_pool_has_its_slots_its_memory_and_its_restarts() -> None:
    lines = text_of(report(restarts={"exit": 1, "SIGKILL": 3}))

    assert lines == [
        'switchyard_worker_up{pool="urgent"} 1.0',
        'switchyard_worker_slots{pool="urgent"} 4.0',
        'switchyard_worker_slots_busy{pool="urgent"} 1.0',
        'switchyard_worker_memory_bytes{pool="urgent"} 2000.0',
        'switchyard_worker_memory_limit_bytes{pool="urgent"} 5000.0',
        'switchyard_worker_restarts_total{pool="urgent",reason="SIGKILL"} 3.0',
        'switchyard_worker_restarts_total{pool="urgent",reason="exit"} 1.0',
    ]


def test_a_pool_whose_children_are_not_ready_is_not_up() -> None:
    assert 'switchyard_worker_up{pool="urgent"} 0.0' in text_of(report(ready=False))
