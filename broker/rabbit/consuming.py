"""The part of the RabbitMQ broker that its consumers use, so that neither module needs the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from broker.queue.operations import QueueOperations
from broker.rabbit.held import Publication, RabbitMessage
from broker.rabbit.queues import RabbitQueues
from broker.stores.redeliveries import RedeliveryRecord
from broker.worker.ack_barrier import AckBarrier
from broker.worker.cancellations import CancellationPoll


class ConsumingRabbitBroker(Protocol):
    """The part of :class:`broker.rabbit.broker.RabbitBroker` that its consumers use.

    Attributes:
        delivering: Held while a message's delivery changes.
    """

    parameters: Any
    server_queues: RabbitQueues
    in_flight: dict[str, RabbitMessage]
    draining: bool
    quiet: Callable[[], bool]
    barrier: AckBarrier | None
    cancellations: CancellationPoll
    delivering: threading.RLock

    def new_owner(self, lane: str) -> str:
        """Return a name for a consumer that was never used."""

    def leave(self, message: RabbitMessage) -> None:
        """Take a message out of those in flight."""

    def lost(self, owner: str, ended: Sequence[Publication]) -> None:
        """Report that a consumer lost its connection, and the messages that had ended and are not acknowledged."""

    def note_end(self, delivery: Publication) -> None:
        """Note that a message has ended whose delivery is lost."""

    def notes_of(self, message_ids: Sequence[str]) -> list[RedeliveryRecord]:
        """Return the notes of messages that are delivered again."""

    def quarantine(self, family: QueueOperations, message_id: str, entry: str, body: bytes) -> None:
        """Put unreadable bytes into the quarantine of a queue."""

    def emit_before(self, signal: str, *args: Any) -> None:
        """Call the hooks of a signal."""

    def emit_after(self, signal: str, *args: Any) -> None:
        """Call the hooks of a signal."""
