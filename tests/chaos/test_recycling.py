"""Children that are replaced while they work: the pool's throughput shows nothing of it."""

from __future__ import annotations

import statistics
from collections import Counter
from itertools import pairwise

import pytest

from tests.chaos.conftest import PoolsOn
from tests.chaos.ledger import Ledger
from tests.chaos.load import enqueue, wait_until_drained
from tests.chaos.pools import Pools

pytestmark = pytest.mark.usefixtures("valkey")
BIN_S = 0.1


@pytest.mark.timeout(300)
# Beside other tests a child, or the server, stands still for a second: then only a gap that a lease makes shows.
@pytest.mark.parametrize(
    ("jobs", "worst", "mean", "gap_s"),
    [(1_500, 0.0, 0.3, 5.0), pytest.param(8_000, 0.8, 0.97, 0.5, marks=pytest.mark.long)],
)
def test_throughput_does_not_dip_while_children_are_replaced(
    pools_on: PoolsOn, valkey_url: str, ledger: Ledger, jobs: int, worst: float, mean: float, gap_s: float
) -> None:
    steady = pools_on("two", valkey_url)
    normal = rates(steady, ledger, "steady", jobs)
    steady.drain_all()
    recycled = pools_on("recycling", valkey_url)

    found = rates(recycled, ledger, "recycled", jobs)

    ends = [e for e in ledger.entries() if e.phase == "completed" and e.job.startswith("recycled")]
    pids = {e.pid for e in ends}
    longest_gap_s = max(later - at for at, later in pairwise(sorted(e.at_s for e in ends)))
    usual = statistics.median(normal)
    print(
        f"replaced every 500 tasks, {len(pids)} children: worst 100 ms {min(found) / usual:.0%} of normal, "
        f"mean {statistics.mean(found) / statistics.mean(normal):.0%}; without replacing {min(normal) / usual:.0%}; "
        f"longest time without an end {longest_gap_s:.2f} s"
    )
    account = ledger.account()
    assert (account.lost, account.duplicated, account.unexpected) == ((), (), ())
    assert len(pids) >= jobs // 500
    assert longest_gap_s <= gap_s
    assert min(found) >= worst * usual
    assert statistics.mean(found) >= mean * statistics.mean(normal)


def rates(pools: Pools, ledger: Ledger, name: str, jobs: int) -> list[int]:
    """Have jobs of 20 ms done, and return how many ended in each tenth of a second between the first and the last."""
    for number in range(jobs):
        enqueue(pools.broker, ledger, f"{name}-{number}.", 20)
    pools.start("runpool", "work")
    wait_until_drained(pools.broker, 120)
    ends = [e.at_s for e in ledger.entries() if e.phase == "completed" and e.job.startswith(name)]
    bins = Counter(int((at_s - ends[0]) / BIN_S) for at_s in ends)
    return [bins[number] for number in range(2, max(bins) - 1)]
