"""Real pools, as a deployment runs them, whose server is killed again and again."""

from __future__ import annotations

from math import inf

import pytest

from tests.chaos.conftest import PoolsOn
from tests.chaos.ledger import Ledger
from tests.chaos.load import load, wait_until_drained
from tests.chaos.pools import RunningPool
from tests.chaos.server import ServerUnderTest
from tests.chaos.test_server_faults import seconds_until_one_completes
from tests.waiting import wait_for


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(
    ("kills", "enqueues", "per_s", "within_s"),
    [(1, 300, 300, inf), pytest.param(5, 30_000, 0, 5, marks=pytest.mark.long)],
)
def test_pools_outlive_kills_of_their_server_and_lose_nothing(
    server: ServerUnderTest, pools_on: PoolsOn, ledger: Ledger, kills: int, enqueues: int, per_s: float, within_s: float
) -> None:
    server.sync_each_write()
    pools = pools_on("load", server.url)
    broker, running = pools.broker, pools.start("runpools")
    before = processes_of(running)
    back_s = []

    with load(broker, ledger, per_s=per_s, ms=0) as producers:
        for _ in range(kills):
            producers.wait_for_accepted(enqueues // (kills + 1), 300)
            server.kill()
            producers.wait_for_refused(2)
            server.restart()
            back_s.append(seconds_until_one_completes(ledger))
        wait_for(lambda: producers.accepted_count >= enqueues, 600)
        producers.stop()
        wait_until_drained(broker, 600)

    print(f"a job completed {max(back_s):.2f} s after a restart at the latest")
    ledger.each_once()
    assert max(back_s) < within_s
    assert processes_of(running) == before


def processes_of(pool: RunningPool) -> set[int]:
    """Return the pids of all pools: supervisors and children."""
    return {pool.pid, *pool.children().values()}
