"""A cluster for all tests, and the access to it."""

import contextlib
from collections.abc import Iterator

import pytest

from switchyard.broker.redis.calls import RedisCalls, calls_on
from switchyard.broker.redis.connections import connect
from tests import same_examples as same_examples
from tests.addons.cluster.nodes import ClusterUnderTest
from tests.integration.operations.conftest import watcher as watcher


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[ClusterUnderTest]:
    """A cluster of three masters for all tests; each moves back what it moves."""
    with ClusterUnderTest(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def calls(cluster) -> Iterator[RedisCalls]:
    """The access to an emptied cluster."""
    cluster.flush()
    with contextlib.closing(calls_on(connect(cluster.url, profile="quick"), budget_s=1.0)) as calls:
        yield calls
