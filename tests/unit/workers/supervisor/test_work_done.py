"""Messages and busy time that a supervisor reports since its start."""

from __future__ import annotations

import pytest

from switchyard.broker.stores.pool_reports import ReportedChild
from switchyard.workers.supervisor import report
from switchyard.workers.supervisor.report import WorkDone


def child(pid: int, *, busy: int, done: int) -> ReportedChild:
    return {"pid": pid, "busy": busy, "done": done}


def test_replaced_child_takes_nothing_from_the_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(report.time, "monotonic", lambda: now_s)
    work = WorkDone()

    work.note([child(1, busy=2, done=5)])
    now_s = 102.0
    work.note([child(1, busy=2, done=9), child(2, busy=1, done=1)])
    now_s = 104.0
    work.note([child(3, busy=1, done=2)])

    assert work.done == 12
    assert work.busy_s == pytest.approx(2.5 * 2 + 2 * 2)
