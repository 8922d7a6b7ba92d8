"""F10 and F21: pools that are stopped or cut off while others take over. Nobody commits what is no longer theirs."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.chaos.conftest import PoolsOn
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.ledger import Ledger
from tests.chaos.load import FIRST, QUEUE, enqueue, let_pass, wait_until_drained
from tests.chaos.pools import Pools, started
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("valkey")
long = pytest.mark.long
LEASE_S = 15.0
LONG_S = 24
SLOTS = 4


def begin(pools: Pools, ledger: Ledger, jobs: list[str], ms: int) -> None:
    """Send jobs and wait until they run."""
    for job in jobs:
        enqueue(pools.broker, ledger, job, ms)
    for job in jobs:
        started(ledger, job)


def starts_in(ledger: Ledger, pids: set[int], since_s: float) -> list[str]:
    return [e.job for e in ledger.entries() if e.phase == "started" and e.pid in pids and e.at_s > since_s]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stopped_s", [25, pytest.param(60, marks=long)])
def test_a_pool_that_was_stopped_as_a_whole_commits_nothing_that_another_has_taken_over(
    pools_on: PoolsOn, valkey_url: str, ledger: Ledger, stopped_s: float
) -> None:
    pools = pools_on("threads", valkey_url)
    zombie = pools.start("runpool", "work")
    jobs = ["taken-0."]  # what ran runs alone elsewhere: more would follow one after the other
    begin(pools, ledger, jobs, int(stopped_s * 1000))
    members, stopped_at_s = zombie.children(), time.monotonic()

    zombie.signal_all(signal.SIGSTOP)
    other = pools.start("runpool", "work")  # now: on a busy machine the task would be over before
    again_s = [started(ledger, job, 2, 90).at_s - stopped_at_s for job in jobs]
    let_pass(max(stopped_at_s + stopped_s - time.monotonic(), 0))
    before = holds(pools)
    for pid in members.values():  # the children first: they are to end their tasks and commit them if they can
        os.kill(pid, signal.SIGCONT)
    zombie.wait_for_log("stale token: message taken")
    after = holds(pools)
    os.kill(zombie.pid, signal.SIGCONT)
    zombie.wait_for_log("lost its lease")
    wait_until_drained(pools.broker, stopped_s + 30)
    begin(pools, ledger, ["later-1", "later-2"], 10)
    wait_until_drained(pools.broker)

    twice = len(ledger.account().duplicated)
    print(
        f"taken over after {min(again_s):.1f} to {max(again_s):.1f} s; of {len(jobs)} tasks {twice} came to their end "
        "twice, and none was committed twice"
    )
    ledger.none_lost()
    assert after == before, "what the other pool runs is still its own"
    assert "stale token" not in other.log()
    assert [len(ledger.of("started", job)) for job in jobs] == [2] * len(jobs)


def holds(pools: Pools) -> dict[bytes, str]:
    """Return the id of every held message, and whose it is."""
    family = pools.broker.families[QUEUE]
    return {lease.id: owner for owner in family.owners() for lease in family.held(owner)}


def reports(pools: Pools) -> list[bytes]:
    """Return what the supervisors report of the live lane: oldest leases that may run first."""
    found = pools.broker.client.hgetall(pools.broker.families[QUEUE].keys.running)
    return [work for owner, work in found.items() if owner.endswith(b"/live")]


# Leases are renewed every 4 s: one may have 11 s left when the cut begins.
@pytest.mark.parametrize("dark_s", [5, pytest.param(8, marks=long)])
def test_a_pool_that_is_cut_off_for_less_than_a_lease_goes_on_as_if_nothing_was(
    pools_on: PoolsOn, valkey_url: str, ledger: Ledger, proxy: FaultProxy, dark_s: float
) -> None:
    pools = pools_on("threads", valkey_url)
    cut_off = pools.start("runpool", "work", url=proxy.url)
    jobs = [f"long-{number}." for number in range(4)]
    begin(pools, ledger, jobs, 20_000)
    pools.start("runpool", "work")
    members = cut_off.children()

    proxy.blackhole()
    let_pass(dark_s)
    proxy.pass_()
    wait_until_drained(pools.broker)

    ledger.each_once()
    assert [len(ledger.of("started", job)) for job in jobs] == [1] * len(jobs)
    assert cut_off.children() == members


@pytest.mark.timeout(400)
@pytest.mark.parametrize("yard", ["threads", pytest.param("greenlets", marks=long)])
def test_a_pool_that_is_cut_off_for_longer_stops_starting_work_and_cannot_commit(
    pools: Pools, ledger: Ledger, proxy: FaultProxy
) -> None:
    cut_off = pools.start("runpool", "work", url=proxy.url)
    # Sixteen run, and sixteen more wait in the children: they would start when those end, after 24 s.
    jobs = [f"long-{number:02d}." for number in range(32)]
    for job in jobs:
        enqueue(pools.broker, ledger, job, LONG_S * 1000, FIRST)
    wait_for(lambda: len(ledger.jobs("started")) == 16)
    first = set(ledger.jobs("started"))
    wait_for(lambda: len(holds(pools)) == 32)
    members = cut_off.children()
    # Before its first report, all that a child holds may run: then the sixteen that wait would run alone as well.
    wait_for(lambda: [int(work.split()[0]) for work in reports(pools)] == [SLOTS] * len(members))

    proxy.blackhole()
    cut_s = time.monotonic()
    other = pools.start("runpool", "work")  # now: on a busy machine the jobs would be over before
    again_s = [started(ledger, job, 2, 120).at_s - cut_s for job in first]
    wait_for(lambda: first <= set(ledger.jobs("completed")))
    let_pass(2)
    late = starts_in(ledger, set(members.values()), cut_s + LEASE_S)
    proxy.pass_()
    cut_off.wait_for_log("lost its lease")
    wait_for(lambda: not set(members.values()) & set(cut_off.children().values()))
    wait_until_drained(pools.broker)

    twice = len(ledger.account().duplicated)
    print(
        f"started elsewhere {min(again_s):.1f} to {max(again_s):.1f} s after the cut; {twice} came to their end twice"
    )
    ledger.none_lost()
    assert late == [], "a pool that has lost its leases starts nothing"
    assert "stale token" not in other.log()
    assert {len(ledger.of("started", job)) for job in first} == {2}
