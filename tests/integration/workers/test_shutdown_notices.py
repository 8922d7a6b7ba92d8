"""Tasks that ask for a notice when their worker stops, in a pool of each kind."""

from __future__ import annotations

import pytest

from switchyard.broker.interface import facilities
from switchyard.broker.keys.keys import Keys
from switchyard.wiring import build_yard
from tests.integration.workers.bench.actors import ENDED, STARTED
from tests.integration.workers.bench.yard import YARD
from tests.integration.workers.conftest import Bench
from tests.processes import titles_below
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


@pytest.mark.long
def test_a_task_that_asks_may_end_where_only_its_child_is_replaced(bench: Bench) -> None:
    bench.start("runpool", "urgent", "--grace", "0.2", settings="aging_settings")
    bench.wait_for_log("pool urgent: ready")
    long = bench.send("urgent", ms=3_000, notify_shutdown=True)
    first = wait_for(lambda: bench.started(long))
    for _ in range(200):
        bench.send("urgent", ms=5)

    wait_for(lambda: bench.ended(long))
    bench.wait_for_log(f"(pid {first['pid']}) is replaced")

    assert [note["token"] for note in bench.notes(STARTED)].count(long) == 1
    assert bench.client.llen(ENDED) > 1


@pytest.mark.long
def test_a_task_of_a_child_that_is_replaced_is_told_when_its_pool_stops(bench: Bench) -> None:
    pool = bench.start("runpool", "urgent", "--grace", "10", settings="aging_settings")
    bench.wait_for_log("pool urgent: ready")
    long = bench.send("urgent", ms=60_000, notify_shutdown=True)
    wait_for(lambda: bench.started(long))
    children = set(titles_below(pool.pid))
    for _ in range(200):
        bench.send("urgent", ms=5)
    wait_for(lambda: bench.client.llen(ENDED) == 200)
    wait_for(lambda: set(titles_below(pool.pid)) - children)

    pool.terminate()

    assert pool.wait(30) == 0
    assert "did not end within the grace period" not in bench.log()
