"""F73 on RabbitMQ: a message that ends its container, supervisor included, is a dead letter after six rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.addons.rabbitmq.chaos.rabbit_pools import RabbitPools, wait_until_completed
from tests.chaos.felled_pools import BRIEF, USUAL, fell_until_buried, kill_five_times
from tests.chaos.ledger import Ledger
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("valkey")
long = pytest.mark.long
RabbitPoolsOn = Callable[[str], "RabbitPools"]


@pytest.fixture
def rabbit_pools_on(rabbitmq_server: Any, valkey_url: str, ledger: Ledger, tmp_path: Path) -> Iterator[RabbitPoolsOn]:
    """Start real pools of a yard on empty queues: ``rabbit_pools_on("one slot").start("runpool", "work")``."""
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
    pools = rabbit_pools_on(yard)
    fell_until_buried(
        pools, ledger, ms=ms, neighbours=neighbours, settings=settings,
        wait_until_done=partial(wait_until_completed, ledger),
    )  # fmt: skip
    wait_for(lambda: not pools.suspects(), what="nothing is suspected any more")


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
    pools = rabbit_pools_on(yard)
    found = kill_five_times(
        pools, ledger, jobs=jobs, ms=ms, settings=settings, wait_until_done=partial(wait_until_completed, ledger)
    )
    print(f"{len(found.duplicated)} twice")
    wait_for(lambda: not pools.suspects() and pools.left() == 0, what="nothing is left, or suspected")
