"""F02: a supervisor that is killed leaves no process behind, and what ran starts again under the next."""

from __future__ import annotations

import time

import pytest

from tests.chaos.ledger import Ledger
from tests.chaos.load import FIRST, enqueue, load, wait_until_drained
from tests.chaos.pools import Pools, started
from tests.processes import is_alive
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("valkey")
long = pytest.mark.long


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("yard", "most_twice"),
    [("threads", 16), pytest.param("threads", 2, marks=long), pytest.param("greenlets", 2, marks=long)],
)
def test_what_a_killed_supervisors_children_ran_starts_again_under_the_next(
    pools: Pools, ledger: Ledger, most_twice: int
) -> None:
    first = pools.start("runpool", "work")
    jobs = [f"long-{number}." for number in range(4)]
    for job in jobs:
        enqueue(pools.broker, ledger, job, 60_000, FIRST)
    for job in jobs:
        started(ledger, job)
    below = first.children().values()

    with load(pools.broker, ledger, per_s=100, ms=20, plain=True) as producers:
        producers.wait_for_accepted(50)
        killed_s = time.monotonic()
        first.process.kill()
        wait_for(lambda: not any(is_alive(pid) for pid in below))
        gone_s = time.monotonic() - killed_s
        pools.start("runpool", "work")
        ready_s = time.monotonic() - killed_s
        producers.stop()
    again_s = [started(ledger, job, 2, 120).at_s - killed_s for job in jobs]
    wait_until_drained(pools.broker)

    print(
        f"no process left after {gone_s:.2f} s, the next pool ready after {ready_s:.1f} s, "
        f"started again after {min(again_s):.1f} to {max(again_s):.1f} s"
    )
    found = ledger.none_lost()
    assert len(found.duplicated) <= most_twice
