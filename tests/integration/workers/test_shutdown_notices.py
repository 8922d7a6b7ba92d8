"""Tasks that ask for a notice when their worker stops, in a pool of each kind."""

from __future__ import annotations

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.wiring import build_yard
from tests.integration.workers.bench.yard import YARD
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for


def test_a_task_that_asks_ends_at_once_and_waits_for_another_worker(bench: Bench) -> None:
    queues = ("urgent", "webhook", "slow")
    pools = bench.start("runpools", *queues, "--no-history", "--grace", "20")
    bench.wait_for_log("pools: all ready")
    told = {queue: bench.send(queue, ms=60_000, notify_shutdown=True, max_retries=0) for queue in queues}
    neighbours = [bench.send(queue, ms=1_500) for queue in queues]
    wait_for(lambda: all(bench.started(token) for token in (*told.values(), *neighbours)))

    pools.terminate()

    assert pools.wait(30) == 0
    records = facilities(build_yard(YARD, bench.client, Keys())).records
    for queue, token in told.items():
        record = records.read(bench.ids[token])
        assert record is not None
        found = (record.state, record.attempts, record.error and record.error["type"])
        assert found == ("retrying", 1, "Shutdown"), queue
        assert not bench.ended(token)
    assert all(bench.ended(token) for token in neighbours), "only a task that asks is interrupted"
