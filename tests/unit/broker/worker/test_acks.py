"""Acknowledgements while other threads add to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.queue.results import Lease
from switchyard.broker.worker.acks import MANY, Acks
from tests.unit.broker.worker.test_ack_barrier import SpreadRecords, end, make

OWNER = "child/live"


class Held:
    """A family of which nothing is held."""

    def held(self, owner: str) -> list[Lease]:
        """Return nothing."""
        return []

    def release(self, owner: str, leases: list[Lease]) -> None:
        """Do nothing."""


def test_a_thread_may_acknowledge_while_unknown_ones_are_looked_for() -> None:
    acks = Acks(cast(QueueOperations, Held()), OWNER, barrier=None)

    class Slow(Lease):
        """While it is looked at, another thread acknowledges something."""

        def __hash__(self) -> int:
            acks.add(Lease(OWNER, b"later", b"2"))
            return 1

    acks.add(Slow(OWNER, b"first", b"1"))
    acks.add(Slow(OWNER, b"second", b"1"))

    acks.release_unknown([])

    assert acks.pending


def test_many_acknowledgements_do_not_wait_for_the_node_of_another_queue() -> None:
    """The background waits for seconds for a node that is away."""
    records = SpreadRecords()
    records.away = {"gone"}
    barrier = make(records)
    family = cast(QueueOperations, SimpleNamespace(keys=SimpleNamespace(queue="work")))
    acks = Acks(family, OWNER, barrier=barrier)
    barrier.add(end("of another node", "gone"))
    with pytest.raises(BrokerUnavailable):
        barrier.flush()
    barrier.start()
    try:
        for number in range(MANY):
            barrier.add(end(f"job-{number}"))
            acks.add(Lease(OWNER, f"job-{number}".encode(), b"1"))
        taken = acks.take_written()
    finally:
        records.away = set()
        barrier.stop()

    assert len(taken) == MANY
