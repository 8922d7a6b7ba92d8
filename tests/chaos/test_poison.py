"""F07: a message that takes its worker down again and again. Only it becomes a dead letter, after the third crash."""

from __future__ import annotations

import re

import pytest
from dramatiq.broker import Broker

from broker.interface import facilities
from tests.chaos.conftest import PoolsOn
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, enqueue, wait_until_drained
from tests.waiting import wait_for
from tests.ways import CANARY

pytestmark = pytest.mark.usefixtures("valkey")
long = pytest.mark.long


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("yard", "good", "share"),
    [
        ("threads", 400, 0.4),
        ("processes", 200, 0.4),
        ("greenlets", 400, 0.2),
        pytest.param("threads", 1_000, 0.7, marks=long),
        pytest.param("processes", 1_000, 0.7, marks=long),
        pytest.param("greenlets", 1_000, 0.7, marks=long),
    ],
)
def test_a_poison_message_dies_after_three_crashes_and_the_others_go_on(
    pools_on: PoolsOn, valkey_url: str, ledger: Ledger, yard: str, good: int, share: float
) -> None:
    pools = pools_on(yard, valkey_url)
    pool = pools.start("runpool", "work")
    broker, transport = pools.broker, facilities(pools.broker).transport
    normal_per_s = rate(broker, ledger, "normal", good)

    meanwhile_per_s = rate(broker, ledger, "meanwhile", good, pill_after=good // 3)

    wait_for(lambda: transport.stats(QUEUE).dead == 1, 60)
    wait_until_drained(broker, 30)
    crashes = ledger.of("started", "pill")
    [letter] = transport.dead_letters(QUEUE).items
    ledger.note("buried", letter.id)
    within_s = crashes[-1].at_s - crashes[0].at_s
    print(
        f"{good} good jobs: {normal_per_s:.0f}/s without, {meanwhile_per_s:.0f}/s beside a poison message "
        f"({meanwhile_per_s / normal_per_s:.0%}); {len(crashes)} crashes within {within_s:.2f} s"
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


def rate(broker: Broker, ledger: Ledger, name: str, good: int, pill_after: int = -1) -> float:
    """Have so many good jobs of 20 ms done, a poison message among them, and return how many were a second."""
    for number in range(good):
        enqueue(broker, ledger, f"{name}-{number}.", 20)
        if number == pill_after:
            enqueue(broker, ledger, "pill", 20, "crash")
    jobs = {f"{name}-{number}." for number in range(good)}
    wait_for(lambda: jobs <= set(ledger.jobs("completed")), 120, what=f"{good} good jobs done")
    ends = [entry.at_s for entry in ledger.entries() if entry.phase == "completed" and entry.job in jobs]
    starts = [entry.at_s for entry in ledger.entries() if entry.phase == "started" and entry.job in jobs]
    return good / (max(ends) - min(starts))
