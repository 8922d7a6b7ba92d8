"""The part of the RabbitMQ broker that its consumers use, so that neither module needs the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from switchyard.addons.rabbitmq.held import RabbitMessage
from switchyard.addons.rabbitmq.publication import Publication
from switchyard.addons.rabbitmq.queues import RabbitQueues
from switchyard.addons.rabbitmq.redeliveries import Redeliveries
from switchyard.broker.keys.queue_keys import Lane
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.stores.quarantine import Quarantine
from switchyard.broker.worker.ack_barrier import AckBarrier
from switchyard.broker.worker.cancellations import CancellationPoll
from switchyard.broker.worker.held_marks import HeldMarks


class ConsumingRabbitBroker(Protocol):
    """The part of :class:`switchyard.addons.rabbitmq.broker.RabbitBroker` that its consumers use.

    Attributes:
        delivering: Held while a message's delivery changes.
        longest_held_ms: How long a message may wait here for a thread.
        held_marks: Where a pool's child writes what it holds, for its supervisor.
    """

    parameters: Any
    server_queues: RabbitQueues
    in_flight: dict[str, RabbitMessage]
    draining: bool
    quiet: Callable[[], bool]
    barrier: AckBarrier | None
    redeliveries: Redeliveries
    unreadable: Quarantine
    cancellations: CancellationPoll
    delivering: threading.RLock
    longest_held_ms: int
    held_marks: HeldMarks | None

    def lane(self, queue_name: str) -> tuple[QueueOperations, Lane]:
        """Return the keys of a queue's family, and the kind of the lane."""

    def new_owner(self, lane: str) -> str:
        """Return a name for a consumer that was never used."""

    def leave(self, message: RabbitMessage) -> None:
        """Take a message out of those in flight."""

    def lost(self, owner: str, ended: Sequence[Publication]) -> None:
        """Report that a consumer lost its connection, and the messages that had ended and may be unacknowledged."""

    def emit_before(self, signal: str, *args: Any) -> None:
        """Call the hooks of a signal."""

    def emit_after(self, signal: str, *args: Any) -> None:
        """Call the hooks of a signal."""
