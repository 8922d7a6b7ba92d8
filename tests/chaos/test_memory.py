"""F05: tasks that take too much memory. They fail, or only their child is killed, and leaks do not accumulate."""

from __future__ import annotations

import threading
import time

import pytest

from switchyard.broker.interface import facilities
from switchyard.workers.shared.fork import resident_bytes
from tests.chaos.conftest import PoolsOn
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, enqueue, wait_until_drained
from tests.chaos.pools import Pools, RunningPool, restarts, started
from tests.chaos.yard.yards import MB
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("valkey")
LIMIT_BYTES = 250 * MB
long = pytest.mark.long


class Heaviest:
    """Weighs a pool's children all the time, in a thread; ``bytes`` is what the heaviest came to."""

    def __init__(self, pool: RunningPool) -> None:
        self._pool = pool
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._weigh, daemon=True)
        self.bytes = 0

    def __enter__(self) -> Heaviest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _weigh(self) -> None:
        pids: list[int] = []
        look_at_s = 0.0
        while not self._stop.wait(0.003):
            if time.monotonic() > look_at_s:
                pids, look_at_s = list(self._pool.children().values()), time.monotonic() + 0.1
            self.bytes = max([self.bytes, *map(resident_bytes, pids)])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("jobs", [200, pytest.param(1_000, marks=long)])
@pytest.mark.parametrize(
    "yard",
    ["ceiling threads", pytest.param("ceiling processes", marks=long), pytest.param("ceiling greenlets", marks=long)],
)
def test_a_leak_of_5_mb_a_run_never_takes_a_child_over_its_ceiling(pools: Pools, ledger: Ledger, jobs: int) -> None:
    pool = pools.start("runpool", "work")

    with Heaviest(pool) as heaviest:
        for number in range(jobs):
            enqueue(pools.broker, ledger, f"leaks-{number}.", 5, "leak")
        wait_until_drained(pools.broker, 120)

    most = heaviest.bytes
    children = len({entry.pid for entry in ledger.entries() if entry.phase == "completed"})
    print(f"{jobs} jobs keep 5 MB each: {children} children, the heaviest {most / 1e6:.0f} of {LIMIT_BYTES / 1e6:g} MB")
    ledger.each_once()
    assert len(ledger.jobs("started")) == jobs, "none was interrupted"
    assert "killed" not in pool.log()
    assert most <= LIMIT_BYTES


def test_a_task_that_takes_all_memory_at_once_fails_by_itself_where_it_is_alone(
    pools_on: PoolsOn, valkey_url: str, ledger: Ledger
) -> None:
    pools = pools_on("ceiling processes", valkey_url)
    pool = pools.start("runpools")
    transport = facilities(pools.broker).transport

    with Heaviest(pool) as heaviest:
        enqueue(pools.broker, ledger, "glutton", 0, "gobble")
        wait_for(lambda: transport.stats(QUEUE).dead == 1)

    [letter] = transport.dead_letters(QUEUE).items
    ledger.note("buried", letter.id)
    found = ledger.account()
    assert (found.dead, found.lost, found.duplicated, found.unexpected) == (("glutton",), (), (), ())
    assert (letter.reason, letter.exception) == ("exhausted", "MemoryError")
    assert "killed" not in pool.log()
    assert heaviest.bytes <= LIMIT_BYTES


# The task takes 10 MB each 20 ms: a supervisor that stands still for a moment finds far more than the ceiling.
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("yard", "most_times"),
    [
        ("ceiling threads", 2.0),
        pytest.param("ceiling threads", 1.1, marks=long),
        pytest.param("ceiling greenlets", 1.1, marks=long),
    ],
)
def test_a_child_that_a_task_takes_over_its_ceiling_is_killed_and_its_neighbours_run_again(
    pools: Pools, ledger: Ledger, most_times: float
) -> None:
    pool = pools.start("runpools")
    transport = facilities(pools.broker).transport
    neighbours = [f"neighbour-{number}." for number in range(3)]
    for job in neighbours:
        enqueue(pools.broker, ledger, job, 3_000)
        started(ledger, job)

    with Heaviest(pool) as heaviest:
        enqueue(pools.broker, ledger, "glutton", 0, "gobble_slowly")
        pool.wait_for_log(r"takes \d+ MB, over its 250 MB; killed")
        wait_until_drained(pools.broker, 60)

    most = heaviest.bytes
    print(f"the heaviest child came to {most / 1e6:.0f} of {LIMIT_BYTES / 1e6:g} MB")
    # Alone it fails by itself, or is killed twice more.
    [letter] = transport.dead_letters(QUEUE).items
    ledger.note("buried", letter.id)
    found = ledger.account()
    assert (found.dead, found.lost, found.duplicated, found.unexpected) == (("glutton",), (), (), ())
    wait_for(lambda: restarts(pools, "work").get("memory"))
    assert most <= most_times * LIMIT_BYTES
