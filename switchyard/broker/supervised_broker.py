"""The part of a broker that pools use: their supervisor, and the children that it starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from switchyard.broker.keys.keys import Keys
from switchyard.broker.keys.queue_keys import Lane
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.worker.held_marks import HeldMarks


@runtime_checkable
class SupervisedBroker(Protocol):
    """A broker of this library, wherever its queues live.

    Attributes:
        in_flight: Messages that this process holds, by id.
        quiet: Returns whether nothing is to be fetched or started.
        runs_suspects: Messages that may have ended their pool run here.
        held_marks: Where a child marks what it holds, if the server gives that to others itself; its supervisor reads.
        families: Queue -> its operations on the Redis server.
        make_leases: Makes a supervisor's leases from the arguments of
            :class:`switchyard.workers.supervisor.leases.ChildLeases`; ``None`` for that class.
    """

    in_flight: Any
    draining: bool
    quiet: Callable[[], bool]
    runs_suspects: bool
    held_marks: HeldMarks | None
    families: dict[str, QueueOperations]
    keys: Keys
    make_leases: Callable[..., Any] | None

    def become(self, child: str, *, slots: int | None = None) -> None:
        """Work under the name of a pool's child."""

    def drain(self) -> None:
        """Fetch nothing from now on."""

    def lane(self, queue_name: str) -> tuple[QueueOperations, Lane]:
        """Return the operations of a lane's queue on the Redis server, and the kind of the lane."""
