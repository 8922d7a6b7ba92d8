"""A batch whose members' queues, and which itself, live on several nodes: it is counted there as on one server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from switchyard.batches.counting import count_batches
from switchyard.batches.services import batch
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.wiring import build_yard
from tests.addons.cluster.nodes import ClusterUnderTest
from tests.factories.brokers import the_global_broker
from tests.integration.batches.conftest import Actors, figures, two_queues, until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def broker(cluster: ClusterUnderTest) -> Iterator[RedisBroker]:
    cluster.flush()
    made = build_yard(two_queues(), connect(cluster.url), Keys(f"test-{uuid.uuid4().hex[:8]}"))
    with the_global_broker(made):
        yield made
    made.close()


def test_members_on_several_nodes_are_counted(broker: RedisBroker, run_worker: Any) -> None:
    actors = Actors()
    actors.refused = {3}
    made = []
    for _ in range(5):
        with batch("import", **actors.callbacks()) as jobs:
            jobs.add(*(actors.work.message(number, adds=1) for number in range(4)), actors.other.message(9))
        made.append(jobs)
    calls = broker.switchyard.records.calls  # type: ignore[attr-defined]
    places = {calls.place_of(broker.keys.batch(jobs.id)) for jobs in made}
    with run_worker(broker=broker):
        until(count_batches, lambda: len(actors.called) == 10)

    assert len(places) > 1, "the batches are on several nodes"
    assert sorted(actors.called) == ["on_complete"] * 5 + ["on_failure"] * 5
    assert [figures(jobs) for jobs in made] == [("complete", 0, 7, 1, 0)] * 5
