"""A job of a group is counted once the record of its own queue is written, whatever other nodes of a cluster do."""

from __future__ import annotations

from typing import Any, cast
from unittest import mock

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from switchyard.broker.interface import Transport
from switchyard.broker.stores.limit_counts import GroupBarriers
from switchyard.broker.topology import Queue, Yard
from switchyard.middleware.callbacks import DurableGroupCallbacks
from tests.addons.cluster.unit.test_barrier import SpreadRecords, make
from tests.unit.broker.worker.test_ack_barrier import end

QUEUES = tuple(Queue(name, objective_ms=None, soft_limit_ms=5_000, hard_limit_ms=9_000) for name in ("work", "gone"))


@pytest.mark.parametrize("lane", ["work", "work-retry"])
def test_a_job_is_counted_while_the_node_of_another_queue_is_away(lane: str) -> None:
    records = SpreadRecords()
    records.away = {"gone"}
    barrier = make(records)
    counted: list[Any] = []

    def count(group: str, job_id: str, *, ttl_ms: int) -> str:
        counted.append((group, job_id, list(records.written)))
        return "open"

    groups = cast(GroupBarriers, mock.Mock(count=count))
    transport = cast(Transport, mock.Mock())
    callbacks = DurableGroupCallbacks(groups=groups, barrier=barrier, yard=Yard(QUEUES, ()), transport=transport)
    options = {"group_completion_uuid": "group", "group_completion_callbacks": [{}]}
    message = dramatiq.Message(lane, "add", (), {}, options, message_id="a")
    barrier.add(end("b", "gone"))
    barrier.add(end("a", "work"))

    callbacks.after_process_message(StubBroker(middleware=[]), dramatiq.MessageProxy(message))

    assert counted == [("group", "a", ["a"])]
