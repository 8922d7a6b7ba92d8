"""The part of a broker that its consumers use, so that neither module needs the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from switchyard.broker.held_message import HeldMessage
from switchyard.broker.held_moves import HeldMoves
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.queue.results import Lease
from switchyard.broker.worker.acks import Acks
from switchyard.broker.worker.cancellations import CancellationPoll
from switchyard.broker.worker.prefetch import PrefetchCredit


class ConsumingBroker(Protocol):
    """The part of :class:`switchyard.broker.redis_broker.RedisBroker` that its consumers use."""

    in_flight: dict[str, HeldMessage]
    draining: bool
    quiet: Callable[[], bool]
    knows: Callable[[str], bool]
    moves: HeldMoves
    cancellations: CancellationPoll

    @property
    def credit(self) -> PrefetchCredit:
        """The prefetch credit of this process's worker."""

    def acks_of(self, family: QueueOperations, owner: str) -> Acks:
        """Return the acknowledgements of an owner."""

    def report_stale(self, family: QueueOperations, leases: Iterable[Lease]) -> None:
        """Report messages whose lease was lost before their end."""

    def lost_lease(self, owner: str) -> None:
        """Report that an owner lost its lease."""

    def emit_before(self, signal: str, *args: Any) -> None:
        """Call the hooks of a signal."""

    def emit_after(self, signal: str, *args: Any) -> None:
        """Call the hooks of a signal."""
