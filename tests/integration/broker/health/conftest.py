"""Fixtures of checks of a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from switchyard.broker.redis.access import calls_on
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from tests.chaos.cluster import ClusterUnderTest


@pytest.fixture
def calls(cluster: ClusterUnderTest) -> Iterator[RedisCalls]:
    """The access to an emptied cluster."""
    cluster.flush()
    calls = calls_on(connect(cluster.url, profile="quick"), budget_s=1.0)
    yield calls
    calls.close()
