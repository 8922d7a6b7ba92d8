"""Every test of this folder runs once for each transport, and on a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from broker.redis.connections import connect
from tests.integration.broker.conformance.subjects import SUBJECTS, Subject


@pytest.fixture(params=sorted(SUBJECTS))
def subject(request: pytest.FixtureRequest, valkey: redis.Redis) -> Iterator[Subject]:
    """A transport under test, with nothing in it."""
    if request.param == "cluster":
        valkey = connect(request.getfixturevalue("cluster").url)
    subject = SUBJECTS[request.param](valkey, request.param)
    yield subject
    subject.close()
