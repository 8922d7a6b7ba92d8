"""F01: children that are killed under load. Their messages restart at once, and other children are not affected."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time

import pytest

from switchyard.broker.interface import facilities
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, let_pass, load
from tests.chaos.pools import Pools, RunningPool, report_of, restarts
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("valkey")
EVERY_S = 2.0
SLOTS = 4  # of a child: the job that each has just ended may run again


# How soon is printed: a lease lasts 15 s, and what waited for its end would tell there.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.long)])
@pytest.mark.parametrize("yard", ["threads", pytest.param("greenlets", marks=pytest.mark.long)])
def test_what_a_killed_child_ran_starts_again_at_once_and_no_sibling_stops(
    pools: Pools, ledger: Ledger, kills: int
) -> None:
    pool = pools.start("runpool", "work")
    chosen = random.Random(11)
    killed: dict[int, float] = {}
    back_s: list[float] = []

    # Ten of the sixteen slots run at any time, so that a kill meets some.
    with load(pools.broker, ledger, per_s=200, ms=50, plain=True) as producers:
        began_s = time.monotonic()
        for number in range(1, kills + 1):
            let_pass(max(began_s + EVERY_S * number - time.monotonic(), 0))
            victim = chosen.choice(sorted(workers(pool)))
            killed[victim] = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: len(workers(pool) - set(killed)) == 4)
            back_s.append(time.monotonic() - killed[victim])
        let_pass(EVERY_S)
        per_s = producers.accepted_count / (time.monotonic() - began_s)
        producers.finish(0)

    again_s = sorted(seconds_until_again(ledger, killed))
    interrupted = siblings_interrupted(ledger, set(killed))
    found = ledger.account()
    print(
        f"{kills} kills under {per_s:.0f} jobs/s: {len(again_s)} jobs started again after "
        f"{statistics.median(again_s):.3f} s at the median, {again_s[-1]:.3f} s at worst; "
        f"{len(found.duplicated)} completed twice, {interrupted} of siblings interrupted, "
        f"children back after {max(back_s):.2f} s at the latest"
    )
    assert (found.lost, found.unexpected, interrupted) == ((), (), 0)
    assert facilities(pools.broker).transport.stats(QUEUE).dead == 0
    wait_for(lambda: restarts(pools, "work") == {"SIGKILL": kills})
    crashed = report_of(pools, "work").crashed
    assert len(crashed) == 3 and crashed == sorted(crashed)
    assert len(found.duplicated) <= kills * SLOTS


def workers(pool: RunningPool) -> set[int]:
    """Return the pids of a pool's own children."""
    return {pid for title, pid in pool.children().items() if title.startswith("work child")}


def seconds_until_again(ledger: Ledger, killed: dict[int, float]) -> list[float]:
    """Return how long after the kill each job started that a killed child was running."""
    took_s = []
    running: dict[str, int] = {}
    for entry in ledger.entries():
        if entry.phase == "started":
            if entry.job in running and running[entry.job] != entry.pid:
                took_s.append(entry.at_s - killed[running[entry.job]])
            running[entry.job] = entry.pid
        elif entry.phase == "completed":
            running.pop(entry.job, None)
    return took_s


def siblings_interrupted(ledger: Ledger, killed: set[int]) -> int:
    """Return how many jobs started and did not complete in children that were not killed."""
    began = {(entry.job, entry.pid) for entry in ledger.entries() if entry.phase == "started"}
    ended = {(entry.job, entry.pid) for entry in ledger.entries() if entry.phase == "completed"}
    return sum(pid not in killed for _, pid in began - ended)
