"""F73: a message that ends its container, supervisor included. Only it becomes a dead letter, after six rounds."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

import pytest

from broker.interface import facilities
from broker.shapes import DeadLetter
from tests.chaos.conftest import PoolsOn
from tests.chaos.killed_host import Host
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, enqueue, wait_until_drained
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("valkey")
long = pytest.mark.long
BRIEF = "tests.chaos.yard.brief_leases"
MOST_ROUNDS = 6


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("yard", "ms", "neighbours", "settings"),
    [
        pytest.param("one slot", 200, 20, BRIEF, marks=long),
        ("many greenlets", 200, 200, BRIEF),
        pytest.param("one slot", 0, 200, BRIEF, marks=long),
        pytest.param("many greenlets", 0, 200, BRIEF, marks=long),
        pytest.param("one slot", 2_000, 200, "tests.chaos.yard.settings", marks=long),
        pytest.param("many greenlets", 2_000, 1_000, "tests.chaos.yard.settings", marks=long),
        pytest.param("threads", 0, 1_000, "tests.chaos.yard.settings", marks=long),
    ],
)
def test_a_message_that_fells_its_container_dies_after_six_rounds_and_no_neighbour_is_blamed(
    pools_on: PoolsOn, valkey_url: str, ledger: Ledger, yard: str, ms: int, neighbours: int, settings: str
) -> None:
    pools = pools_on(yard, valkey_url)
    transport = facilities(pools.broker).transport
    for number in range(neighbours):
        enqueue(pools.broker, ledger, f"good-{number}.", 20)
        if number == neighbours // 2:
            enqueue(pools.broker, ledger, "pill", ms, "fell")
    host = Host(pools, settings)

    def buried() -> Sequence[DeadLetter]:
        host.restart_if_gone()
        return transport.dead_letters(QUEUE).items

    [letter] = wait_for(buried, 500, what="a dead letter")
    ledger.note("buried", letter.id)
    wait_until_drained(pools.broker, 60)

    found, felled = ledger.account(), len(ledger.of("started", "pill"))
    print(f"{host.rounds} rounds, {felled} starts of the pill")
    assert (found.dead, found.lost, found.unexpected) == (("pill",), (), ())
    assert (letter.id, letter.reason) == ("pill", "suspected_poison")
    assert felled == host.rounds <= MOST_ROUNDS
    assert f"on {socket.gethostname()}" in letter.error
    times = re.findall(r"found expired at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, on host (\S+)", letter.traceback)
    assert times == [socket.gethostname()] * 5


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("yard", "jobs", "ms", "settings"),
    [
        pytest.param("many greenlets", 300, 100, BRIEF, marks=long),
        pytest.param("many greenlets", 1_000, 150, "tests.chaos.yard.settings", marks=long),
        pytest.param("one slot", 1_000, 100, "tests.chaos.yard.settings", marks=long),
        pytest.param("threads", 1_000, 1_000, "tests.chaos.yard.settings", marks=long),
    ],
)
def test_a_host_that_is_killed_five_times_blames_no_message(
    pools_on: PoolsOn, valkey_url: str, ledger: Ledger, yard: str, jobs: int, ms: int, settings: str
) -> None:
    pools = pools_on(yard, valkey_url)
    transport = facilities(pools.broker).transport
    host = Host(pools, settings)
    for number in range(jobs):
        enqueue(pools.broker, ledger, f"good-{number}.", ms)
    for _ in range(5):
        started = len(ledger.jobs("started"))
        wait_for(lambda: len(ledger.jobs("started")) > started, 120, what="more jobs started")  # noqa: B023
        host.kill()

    wait_until_drained(pools.broker, 400)

    found = ledger.account()
    assert transport.stats(QUEUE).dead == 0
    assert (found.lost, found.unexpected, len(found.completed)) == ((), (), jobs)
    assert pools.broker.client.hlen(pools.broker.families[QUEUE].keys.notes) == 0
