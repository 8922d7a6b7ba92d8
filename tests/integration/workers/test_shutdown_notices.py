"""Tasks that ask for a notice when their worker stops, in a pool of each kind."""

from __future__ import annotations

import pytest

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.wiring import build_yard
from tests.integration.workers.bench.yard import YARD
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for


@pytest.mark.parametrize("queue", ["urgent", "webhook", pytest.param("slow", marks=pytest.mark.long)])
def test_a_task_that_asks_ends_at_once_and_waits_for_another_worker(bench: Bench, queue: str) -> None:
    pool = bench.start("runpool", queue, "--grace", "20")
    bench.wait_for_log(f"pool {queue}: ready")
    told = bench.send(queue, ms=60_000, notify_shutdown=True, max_retries=0)
    neighbour = bench.send(queue, ms=1_500)
    wait_for(lambda: bench.started(told) and bench.started(neighbour))

    pool.terminate()

    assert pool.wait(30) == 0
    record = facilities(build_yard(YARD, bench.client, Keys())).records.read(bench.ids[told])
    assert record is not None
    assert (record.state, record.attempts, record.error and record.error["type"]) == ("retrying", 1, "Shutdown")
    assert not bench.ended(told)
    assert bench.ended(neighbour), "only a task that asks is interrupted"
