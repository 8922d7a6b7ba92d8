"""Consumer of the broker in memory, for tests that start a worker of Dramatiq's own."""

from __future__ import annotations

from typing import Any, Protocol

from dramatiq.broker import Consumer as DramatiqConsumer
from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from switchyard.broker.held_message import HeldMessage


class HoldingBroker(Protocol):
    """The part of :class:`switchyard.testing.broker.MemoryBroker` that its consumers use."""

    def wait_for_message(self, lane: str, timeout_ms: int) -> HeldMessage | None:
        """Hold the next message of a lane."""

    def enqueue(self, message: Message[Any]) -> Message[Any]:
        """Enqueue a message."""

    def finish(self, held: MessageProxy) -> None:
        """Forget a message."""


class MemoryConsumer(DramatiqConsumer):
    """Messages of one lane, for a worker of Dramatiq's own."""

    def __init__(self, broker: HoldingBroker, lane: str, *, timeout_ms: int) -> None:
        self._broker = broker
        self._lane = lane
        self._timeout_ms = timeout_ms

    def __next__(self) -> MessageProxy | None:
        """Return the next message, or ``None`` when none came in time. At most 20 ms: delays end between two calls."""
        return self._broker.wait_for_message(self._lane, min(self._timeout_ms, 20))

    def ack(self, message: MessageProxy) -> None:
        """Forget a message."""
        self._broker.finish(message)

    def nack(self, message: MessageProxy) -> None:
        """Forget a message that was rejected; its dead letter is stored."""
        self._broker.finish(message)

    def requeue(self, messages: Any) -> None:
        """Put messages that were not run back."""
        for message in messages:
            self._broker.enqueue(message.copy())
            self._broker.finish(message)
