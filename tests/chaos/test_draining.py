"""Pools that drain, are stopped or are cut off while others take over: F03, F04, F10 and F21."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from math import inf

import pytest

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from tests.chaos.load import FIRST, QUEUE, enqueue, let_pass, load, wait_until_drained
from tests.chaos.pools import Pools, RunningPool, begin, started
from tests.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.timeout(400)]
long = pytest.mark.long
GRACE_S = 5.0
# A thread that looks for its next message in the moment of the signal starts it.
LOOKING_S = 0.3
LEASE_S = 15.0
LONG_S = 24
SLOTS = 4


# Jobs that are given back start before that; others after their lease of 15 s.
@pytest.mark.parametrize(
    ("how", "grace_s", "looking_s", "most_late_s", "again_within_s"),
    [(FIRST, 2 * GRACE_S, 10 * LOOKING_S, inf, inf), pytest.param("sleep", GRACE_S, LOOKING_S, 3, 2, marks=long)],
)
@pytest.mark.parametrize("yard", ["threads", pytest.param("greenlets", marks=long)])
def test_a_task_that_outlasts_the_grace_starts_elsewhere_with_its_attempt_unspent(
    pools, ledger, how, grace_s, looking_s, most_late_s, again_within_s
):
    both = [pools.start("runpool", "work", "--grace", f"{grace_s:g}") for _ in range(2)]
    enqueue(pools.broker, ledger, "long", 60_000, how)
    first = started(ledger, "long")
    old, new = sorted(both, key=lambda pool: first.pid not in pool.children().values())

    with load(pools.broker, ledger, per_s=100, ms=20, plain=True) as producers:
        producers.wait_for_accepted(50)
        ending = set(old.children().values())
        assert "long" in held_by(pools.broker, old)
        told_s = time.monotonic()
        old.process.terminate()
        wait_for(
            lambda: time.monotonic() > told_s + looking_s and held_by(pools.broker, old) == {"long"},
            grace_s - 1,
            what="it holds what runs, and no more",
        )
        held = held_until_it_ends(pools.broker, old, 60)
        ended_s = time.monotonic()
        producers.wait_for_accepted(50)
        producers.stop()
    again = started(ledger, "long", 2)
    wait_until_drained(pools.broker, 90)

    record = facilities(pools.broker).records.read("long")
    late = [e for e in ledger.entries() if e.phase == "started" and e.pid in ending and e.at_s > told_s + looking_s]
    print(f"exit after {ended_s - told_s:.2f} s, started elsewhere {again.at_s - ended_s:+.3f} s later")
    ledger.each_once()
    assert held <= {"long"}, "nothing is fetched"
    assert (old.process.returncode, late) == (0, [])
    assert grace_s <= ended_s - told_s <= grace_s + most_late_s
    assert again.pid in new.children().values()
    assert again.at_s - ended_s <= again_within_s
    assert again.pid != first.pid
    assert record.attempts == 1


# At once, and not after its grace of 25 s. By default `integration/workers/test_stopping.py` has it of all pools.
@long
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_pool_at_once_and_its_tasks_start_elsewhere(pools, ledger, signum):
    old = pools.start("runpool", "work")
    jobs = [f"long-{number}." for number in range(4)]
    begin(pools, ledger, jobs, 60_000, FIRST)  # longer than a pool takes to start on a busy machine
    pools.start("runpool", "work")
    old.process.send_signal(signum)
    old.wait_for_log("draining")

    told_s = time.monotonic()
    old.process.send_signal(signum)
    code = old.process.wait(60)
    took_s = time.monotonic() - told_s
    again_s = [started(ledger, job, 2).at_s - told_s for job in jobs]
    wait_until_drained(pools.broker)

    print(f"exit {code} after {took_s:.2f} s, started elsewhere after {max(again_s):.2f} s at the latest")
    ledger.each_once()
    assert code != 0
    assert took_s <= 2


@pytest.mark.parametrize(
    ("away", "most_late_s", "again_within_s"),
    [
        ("before", inf, inf),
        pytest.param("before", 5, 20, marks=long),
        # The last renewal may pass up to 4 s after the signal; then its lease of 15 s, and the next sweep.
        pytest.param("during", 5, 23, marks=long),
    ],
)
def test_a_pool_that_drains_without_its_server_leaves_its_tasks_their_grace_and_says_so(
    pools, ledger, proxy, away, most_late_s, again_within_s
):
    old = pools.start("runpool", "work", "--grace", f"{GRACE_S:g}", url=proxy.url)
    jobs = [f"long-{number}." for number in range(4)]
    begin(pools, ledger, jobs, 60_000, FIRST)
    ending = set(old.children().values())
    pools.start("runpool", "work")

    if away == "before":
        proxy.blackhole()
        old.wait_for_log("leases are not renewed")
        told_s = time.monotonic()
        old.process.terminate()
    else:
        told_s = time.monotonic()
        old.process.terminate()
        old.wait_for_log("draining")
        let_pass(1)
        proxy.blackhole()
    code = old.process.wait(60)
    took_s = time.monotonic() - told_s
    again_s = [started(ledger, job, 2, 90).at_s - told_s for job in jobs]
    wait_until_drained(pools.broker)

    print(f"exit {code} after {took_s:.2f} s, started elsewhere after {max(again_s):.2f} s at the latest")
    ledger.each_once()
    assert code != 0
    assert GRACE_S - LOOKING_S <= took_s <= GRACE_S + most_late_s
    assert "not all messages were returned to the broker; the rest start when their leases expire" in old.log()
    assert "requeued" not in old.log(), "nothing could be requeued"
    assert min(again_s) <= again_within_s, "the others follow: what ran in a lapsed lease runs alone"
    # Not "in a child that the new pool has now": one whose leases lapsed on a busy machine was replaced meanwhile.
    assert not [job for job in jobs if ledger.of("completed", job)[0].pid in ending]


@long
def test_tasks_that_end_within_the_grace_count_although_the_server_was_away_when_the_drain_began(pools, ledger, proxy):
    old = pools.start("runpool", "work", "--grace", "60", url=proxy.url)
    jobs = [f"long-{number}." for number in range(4)]
    begin(pools, ledger, jobs, 6_000)

    proxy.blackhole()
    old.wait_for_log("leases are not renewed")
    old.process.terminate()
    old.wait_for_log("draining")
    let_pass(1)
    proxy.pass_()
    code = old.process.wait(90)

    assert len(ledger.each_once().completed) == len(jobs)
    assert code == 0
    assert pools.broker.families[QUEUE].calls.command("HLEN", pools.broker.families[QUEUE].keys.bodies) == 0


@long
def test_a_pool_without_tasks_that_drains_without_its_server_ends_at_once(pools, proxy):
    pool = pools.start("runpool", "work", url=proxy.url)
    proxy.blackhole()
    pool.wait_for_log("leases are not renewed")

    told_s = time.monotonic()
    pool.process.terminate()
    pool.process.wait(60)

    assert time.monotonic() - told_s <= 5, "it waited for its grace of 25 s"


def held_by(broker: RedisBroker, pool: RunningPool) -> set[str]:
    family = broker.families[QUEUE]
    owners = [owner for owner in family.owners() if owner.startswith(f"work.{socket.gethostname()}.{pool.pid}.")]
    return {str(lease.id, "utf-8") for owner in owners for lease in family.held(owner)}


def held_until_it_ends(broker: RedisBroker, pool: RunningPool, timeout_s: float) -> set[str]:
    held: set[str] = set()
    deadline = time.monotonic() + timeout_s
    while pool.process.poll() is None:
        assert time.monotonic() < deadline, f"it runs still after {timeout_s} s"
        held |= held_by(broker, pool)
        with contextlib.suppress(subprocess.TimeoutExpired):
            pool.process.wait(0.01)
    return held


@pytest.mark.parametrize("stopped_s", [25, pytest.param(60, marks=long)])
def test_a_pool_that_was_stopped_as_a_whole_commits_nothing_that_another_has_taken_over(pools, ledger, stopped_s):
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
    print(f"taken over after {again_s[0]:.1f} s; {twice} of {len(jobs)} tasks came to their end twice")
    ledger.none_lost()
    assert after == before, "what the other pool runs is still its own"
    assert "stale token" not in other.log()
    assert [len(ledger.of("started", job)) for job in jobs] == [2] * len(jobs)


def holds(pools: Pools) -> dict[bytes, str]:
    family = pools.broker.families[QUEUE]
    return {lease.id: owner for owner in family.owners() for lease in family.held(owner)}


def reported(pools: Pools) -> list[int]:
    """Return how many leases of the live lane may run, as each supervisor reports."""
    found = pools.broker.client.hgetall(pools.broker.families[QUEUE].keys.running)
    return [int(work.split()[0]) for owner, work in found.items() if owner.endswith(b"/live")]


# Leases are renewed every 4 s: one may have 11 s left when the cut begins.
@pytest.mark.parametrize("dark_s", [5, pytest.param(8, marks=long)])
def test_a_pool_that_is_cut_off_for_less_than_a_lease_goes_on_as_if_nothing_was(pools, ledger, proxy, dark_s):
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


@pytest.mark.parametrize("yard", ["threads", pytest.param("greenlets", marks=long)])
def test_a_pool_that_is_cut_off_for_longer_stops_starting_work_and_cannot_commit(pools, ledger, proxy):
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
    wait_for(lambda: reported(pools) == [SLOTS] * len(members))

    proxy.blackhole()
    cut_s = time.monotonic()
    other = pools.start("runpool", "work")  # now: on a busy machine the jobs would be over before
    again_s = [started(ledger, job, 2, 120).at_s - cut_s for job in first]
    wait_for(lambda: first <= set(ledger.jobs("completed")))
    let_pass(2)
    pids, since_s = set(members.values()), cut_s + LEASE_S
    late = [e.job for e in ledger.entries() if e.phase == "started" and e.pid in pids and e.at_s > since_s]
    proxy.pass_()
    cut_off.wait_for_log("lost its lease")
    wait_for(lambda: not set(members.values()) & set(cut_off.children().values()))
    wait_until_drained(pools.broker)

    twice = len(ledger.account().duplicated)
    print(f"started elsewhere {min(again_s):.1f} to {max(again_s):.1f} s after the cut; {twice} ended twice")
    ledger.none_lost()
    assert late == [], "a pool that has lost its leases starts nothing"
    assert "stale token" not in other.log()
    assert {len(ledger.of("started", job)) for job in first} == {2}
