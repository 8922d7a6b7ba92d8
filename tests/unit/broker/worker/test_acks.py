"""Acknowledgements while other threads add to them."""

from __future__ import annotations

from typing import cast

from switchyard.broker.queue.operations import Lease, QueueOperations
from switchyard.broker.worker.acks import Acks

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
