"""F73 on RabbitMQ: a message that ends its container, supervisor included, is a dead letter after six rounds."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from broker.interface import facilities
from broker.shapes import DeadLetter
from tests.chaos.killed_host import Host
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, enqueue
from tests.waiting import wait_for

if TYPE_CHECKING:
    from tests.chaos.rabbit_pools import RabbitPools

pytestmark = pytest.mark.usefixtures("valkey")
long = pytest.mark.long
BRIEF, USUAL = "tests.chaos.yard.brief_leases", "tests.chaos.yard.settings"
MOST_ROUNDS = 6
RabbitPoolsOn = Callable[[str], "RabbitPools"]


@pytest.fixture
def rabbit_pools_on(rabbitmq_server: Any, valkey_url: str, ledger: Ledger, tmp_path: Path) -> Iterator[RabbitPoolsOn]:
    """Start real pools of a yard on empty queues: ``rabbit_pools_on("one slot").start("runpool", "work")``."""
    from tests.chaos.rabbit_pools import RabbitPools

    made: list[RabbitPools] = []

    def make(yard: str) -> RabbitPools:
        made.append(RabbitPools(tmp_path, ledger, rabbitmq_server, yard, beside=valkey_url))
        made[-1].empty()
        return made[-1]

    yield make
    for pools in made:
        pools.stop_all()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("yard", "ms", "neighbours", "settings"),
    [
        ("one slot", 0, 20, BRIEF),
        pytest.param("many greenlets", 200, 200, BRIEF, marks=long),
        pytest.param("many greenlets", 0, 200, BRIEF, marks=long),
        pytest.param("one slot", 2_000, 200, USUAL, marks=long),
        pytest.param("many greenlets", 2_000, 1_000, USUAL, marks=long),
        pytest.param("threads", 0, 1_000, USUAL, marks=long),
    ],
)
def test_a_message_that_fells_its_container_dies_after_six_rounds_and_no_neighbour_is_blamed(
    rabbit_pools_on: RabbitPoolsOn, ledger: Ledger, yard: str, ms: int, neighbours: int, settings: str
) -> None:
    from tests.chaos.rabbit_pools import wait_until_completed

    pools = rabbit_pools_on(yard)
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
    wait_until_completed(ledger)

    found, felled = ledger.account(), len(ledger.of("started", "pill"))
    print(f"{host.rounds} rounds, {felled} starts of the pill")
    assert (found.dead, found.lost, found.unexpected) == (("pill",), (), ())
    assert (letter.id, letter.reason) == ("pill", "suspected_poison")
    assert felled == host.rounds <= MOST_ROUNDS
    assert f"on {socket.gethostname()}" in letter.error
    times = re.findall(r"found expired at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, on host (\S+)", letter.traceback)
    assert times == [socket.gethostname()] * 5
    wait_for(lambda: not pools.suspects(), 30, what="nothing is suspected any more")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("yard", "jobs", "ms", "settings"),
    [
        ("many greenlets", 300, 100, BRIEF),
        ("many greenlets", 1_000, 150, USUAL),
        ("one slot", 1_000, 100, USUAL),
        ("threads", 1_000, 1_000, USUAL),
    ],
)
def test_a_host_that_is_killed_five_times_blames_no_message(
    rabbit_pools_on: RabbitPoolsOn, ledger: Ledger, yard: str, jobs: int, ms: int, settings: str
) -> None:
    from tests.chaos.rabbit_pools import wait_until_completed

    pools = rabbit_pools_on(yard)
    host = Host(pools, settings)
    for number in range(jobs):
        enqueue(pools.broker, ledger, f"good-{number}.", ms)
    for _ in range(5):
        started = len(ledger.jobs("started"))
        wait_for(lambda: len(ledger.jobs("started")) > started, 120, what="more jobs started")  # noqa: B023
        host.kill()

    wait_until_completed(ledger)

    found = ledger.account()
    print(f"{len(found.duplicated)} twice")
    assert facilities(pools.broker).transport.stats(QUEUE).dead == 0
    assert (found.lost, found.unexpected, len(found.completed)) == ((), (), jobs)
    wait_for(lambda: not pools.suspects() and pools.left() == 0, 30, what="nothing is left, or suspected")
