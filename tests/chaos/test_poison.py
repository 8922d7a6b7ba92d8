"""F07: a message that takes its worker down again and again. Only it becomes a dead letter, after the third crash."""

from __future__ import annotations

import re
from itertools import pairwise
from math import inf

import pytest
from dramatiq.broker import Broker

from switchyard.broker.interface import facilities
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, enqueue, wait_until_drained
from tests.chaos.pools import Pools
from tests.waiting import wait_for
from tests.ways import CANARY

pytestmark = pytest.mark.usefixtures("valkey")
long = pytest.mark.long


# The speed of a machine with other work changes between the two rates. If jobs waited for the lease of what crashed,
# none would end for 15 s.
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("yard", "good", "share", "gap_s"),
    [
        ("threads", 400, 0.05, inf),
        pytest.param("processes", 200, 0.05, inf, marks=long),
        pytest.param("greenlets", 400, 0.05, inf, marks=long),
        pytest.param("threads", 1_000, 0.7, 5, marks=long),
        pytest.param("processes", 1_000, 0.7, 5, marks=long),
        pytest.param("greenlets", 1_000, 0.7, 5, marks=long),
    ],
)
def test_a_poison_message_dies_after_three_crashes_and_the_others_go_on(
    pools: Pools, ledger: Ledger, good: int, share: float, gap_s: float
) -> None:
    pool = pools.start("runpool", "work")
    broker, transport = pools.broker, facilities(pools.broker).transport
    normal_per_s, _ = rate_and_gap(broker, ledger, "normal", good)

    meanwhile_per_s, longest_gap_s = rate_and_gap(broker, ledger, "meanwhile", good, pill_after=good // 3)

    wait_for(lambda: transport.stats(QUEUE).dead == 1)
    wait_until_drained(broker)
    crashes = ledger.of("started", "pill")
    [letter] = transport.dead_letters(QUEUE).items
    ledger.note("buried", letter.id)
    within_s = crashes[-1].at_s - crashes[0].at_s
    print(
        f"{good} good jobs: {normal_per_s:.0f}/s without, {meanwhile_per_s:.0f}/s beside a poison message "
        f"({meanwhile_per_s / normal_per_s:.0%}), none ended for {longest_gap_s:.2f} s; "
        f"{len(crashes)} crashes within {within_s:.2f} s"
    )
    found = ledger.account()
    assert (found.dead, found.lost, found.unexpected) == (("pill",), (), ())
    assert len(found.duplicated) <= 2 * 3, "of what has just ended when its child dies, two a death may run again"
    assert len(crashes) == 3
    assert (letter.id, letter.reason) == ("pill", "poison")
    assert re.search(r"killed by SIGSEGV in .* ways.py:\d+ crash .*, pid \d+, at most \d+ MB", letter.error)
    assert "Actor: chaos_job" in letter.traceback
    assert re.search(r"Fingerprint of its arguments: [0-9a-f]{16}\n", letter.traceback)
    assert "about to crash, api_key=[redacted]" in letter.traceback
    assert CANARY not in str(letter)
    assert pool.log().count("killed by SIGSEGV") >= 3
    assert meanwhile_per_s >= share * normal_per_s
    assert longest_gap_s <= gap_s


# Exit codes say nothing about an end: a task can end its process with any, or have it drained by a signal to itself.
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("yard", "how"),
    [
        ("threads", "vanish"),
        pytest.param("greenlets", "vanish", marks=long),
        ("threads", "end_itself"),
        pytest.param("threads", "vanish_early", marks=long),
        *(pytest.param("processes", how, marks=long) for how in ("vanish", "vanish_early", "end_itself")),
        *(pytest.param("greenlets", how, marks=long) for how in ("vanish_early", "end_itself")),
    ],
)
def test_an_end_that_looks_like_a_drain_is_a_crash_of_what_ran(pools: Pools, ledger: Ledger, how: str) -> None:
    pools.start("runpool", "work", "--grace", "1")
    broker, transport = pools.broker, facilities(pools.broker).transport
    enqueue(broker, ledger, "pill", 100, how)
    for number in range(20):
        enqueue(broker, ledger, f"beside-{number}.", 20)

    wait_for(lambda: transport.stats(QUEUE).dead == 1, 120, what="the pill is a dead letter")
    wait_until_drained(broker)

    [letter] = transport.dead_letters(QUEUE).items
    ledger.note("buried", letter.id)
    assert (letter.id, letter.reason) == ("pill", "poison")
    assert len(ledger.of("started", "pill")) == 3
    found = ledger.account()
    assert (found.dead, found.lost, found.unexpected) == (("pill",), (), ())


# Where a connection is open its failure is answered, and its policy decides; where none is, it is a suspect.
@pytest.mark.timeout(400)
@pytest.mark.parametrize("yard", ["threads", *(pytest.param(each, marks=long) for each in ("processes", "greenlets"))])
def test_a_task_that_leaves_its_process_no_descriptor_costs_no_other(pools: Pools, ledger: Ledger) -> None:
    pool = pools.start("runpool", "work", "--grace", "1")
    broker, transport = pools.broker, facilities(pools.broker).transport
    others = {f"beside-{number}." for number in range(20)}
    enqueue(broker, ledger, "pill", 100, "exhaust")
    for job in sorted(others):
        enqueue(broker, ledger, job, 20)

    def is_over() -> bool:
        stats = transport.stats(QUEUE)
        return stats.dead + stats.retry.waiting + stats.retry.scheduled == 1

    wait_for(is_over, 120, what="the pill is a dead letter, or waits for its retry, whose pool does not run")
    wait_for(lambda: others <= set(ledger.jobs("completed")), 120, what="all others done")

    assert {letter.id for letter in transport.dead_letters(QUEUE).items} <= {"pill"}
    wait_for(lambda: "no file descriptor left; it is replaced" in pool.log(), what="the child is replaced")


def rate_and_gap(broker: Broker, ledger: Ledger, name: str, good: int, pill_after: int = -1) -> tuple[float, float]:
    """Have so many good jobs of 20 ms done, a poison message among them.

    Returns:
        How many were a second, and the longest time without the end of one.
    """
    for number in range(good):
        enqueue(broker, ledger, f"{name}-{number}.", 20)
        if number == pill_after:
            enqueue(broker, ledger, "pill", 20, "crash")
    jobs = {f"{name}-{number}." for number in range(good)}
    wait_for(lambda: jobs <= set(ledger.jobs("completed")), 120, what=f"{good} good jobs done")
    ends = sorted(entry.at_s for entry in ledger.entries() if entry.phase == "completed" and entry.job in jobs)
    starts = [entry.at_s for entry in ledger.entries() if entry.phase == "started" and entry.job in jobs]
    return good / (max(ends) - min(starts)), max(later - at for at, later in pairwise(ends))
