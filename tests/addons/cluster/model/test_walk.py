"""The invariants hold on a cluster whose nodes are filled, forget their scripts and are killed."""

from collections.abc import Iterator
from typing import cast

import pytest

from tests.addons.cluster.nodes import ClusterUnderTest, Node
from tests.chaos.server import ServerUnderTest
from tests.model.machine import run
from tests.model.scripts import CLOCK_KEY, Scripts
from tests.model.steps import Bench, bench_on


class FamilysNode:
    """The node of the family under test, for the faults of :class:`tests.chaos.server.ServerUnderTest`."""

    def __init__(self, cluster: ClusterUnderTest) -> None:
        self.url = cluster.url
        self._cluster = cluster

    @property
    def _node(self) -> Node:
        return self._cluster.owner(CLOCK_KEY)

    def fill(self) -> None:
        self.config_set("maxmemory", 1)

    def make_room(self) -> None:
        self.config_set("maxmemory", 0)

    def config_set(self, name: str, value: str | int) -> None:
        self._node.ask("CONFIG", "SET", name, value)

    def restart(self) -> None:
        node = self._node
        node.kill()
        node.start()
        self._cluster.wait_until_whole()


@pytest.fixture
def bench(tmp_path) -> Iterator[Bench]:
    with ClusterUnderTest(tmp_path / "cluster", node_timeout_ms=5_000) as cluster:
        yield bench_on(cast(ServerUnderTest, FamilysNode(cluster)), Scripts())


def test_the_invariants_hold_on_a_cluster(bench):
    run(bench, examples=10, steps=30)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_invariants_hold_on_a_cluster_in_two_hundred_examples(bench):
    run(bench, examples=200)

    bench.coverage.check()
