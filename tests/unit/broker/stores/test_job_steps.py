"""Steps of jobs: the short way of a plain success."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from switchyard.broker.stores import job_steps
from switchyard.broker.stores.history_streams import ENDED_JOB, EndedJob
from switchyard.broker.stores.job_steps import WorkerPlace, ended_step, success_step


@pytest.mark.parametrize("options", [{}, {"attempts": 3, "generation": 2}, {"attempts": 10**9}])
def test_a_plain_success_is_recorded_as_any_other_end(monkeypatch: pytest.MonkeyPatch, options: dict[str, int]) -> None:
    monkeypatch.setattr(job_steps, "now_ms", lambda: 1_700_000_000_123)
    message = SimpleNamespace(message_id="a", queue_name="mail-retry", started_ms=1_700_000_000_000, options=options)

    step = success_step("mail", message, WorkerPlace("pool", "host:1", "r9"), b"{}")

    ended = EndedJob(
        "a",
        "succeeded",
        attempt=options.get("attempts", 0) + 1,
        generation=options.get("generation", 0),
        started_at=1_700_000_000_000,
        finished_at=1_700_000_000_123,
        lane="mail-retry",
        pool="pool",
        worker="host:1",
        release="r9",
        body=b"{}",
    )
    other = ended_step("mail", ended)
    assert ENDED_JOB.decode(step.record) == ENDED_JOB.decode(other.record) == ended
    assert replace(step, record=b"", rows=()) == replace(other, record=b"", rows=())
    assert step.rows[0] is step.record  # sent once
