"""F73: a message that ends its container, supervisor included. Only it becomes a dead letter, after six rounds."""

from __future__ import annotations

from functools import partial

import pytest

from tests.chaos.felled_pools import BRIEF, USUAL, fell_until_buried, kill_five_times
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, wait_until_drained
from tests.chaos.pools import Pools

pytestmark = pytest.mark.usefixtures("valkey")
long = pytest.mark.long


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("yard", "ms", "neighbours", "settings"),
    [
        pytest.param("one slot", 200, 20, BRIEF, marks=long),
        ("many greenlets", 200, 200, BRIEF),
        pytest.param("one slot", 0, 200, BRIEF, marks=long),
        pytest.param("many greenlets", 0, 200, BRIEF, marks=long),
        pytest.param("one slot", 2_000, 200, USUAL, marks=long),
        pytest.param("many greenlets", 2_000, 1_000, USUAL, marks=long),
        pytest.param("threads", 0, 1_000, USUAL, marks=long),
    ],
)
def test_a_message_that_fells_its_container_dies_after_six_rounds_and_no_neighbour_is_blamed(
    pools: Pools, ledger: Ledger, ms: int, neighbours: int, settings: str
) -> None:
    fell_until_buried(
        pools, ledger, ms=ms, neighbours=neighbours, settings=settings,
        wait_until_done=partial(wait_until_drained, pools.broker, 60),
    )  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("yard", "jobs", "ms", "settings"),
    [
        pytest.param("many greenlets", 300, 100, BRIEF, marks=long),
        pytest.param("many greenlets", 1_000, 150, USUAL, marks=long),
        pytest.param("one slot", 1_000, 100, USUAL, marks=long),
        pytest.param("threads", 1_000, 1_000, USUAL, marks=long),
    ],
)
def test_a_host_that_is_killed_five_times_blames_no_message(
    pools: Pools, ledger: Ledger, jobs: int, ms: int, settings: str
) -> None:
    kill_five_times(
        pools, ledger, jobs=jobs, ms=ms, settings=settings,
        wait_until_done=partial(wait_until_drained, pools.broker, 400),
    )  # fmt: skip
    assert pools.broker.client.hlen(pools.broker.families[QUEUE].keys.notes) == 0
