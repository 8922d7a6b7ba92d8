"""Messages of the broker in memory: as they wait, and as they were sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dramatiq.message import Message

from switchyard.broker.queue import codec


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message in memory, encoded as it would be on the server.

    Args:
        level: Priority: 1 high, 2 normal, 3 low.
        ready_ms: Time from which it may start, ms since the epoch.
        order: Number of its enqueueing.
    """

    id: str
    lane: str
    body: bytes
    level: int
    ready_ms: int
    order: int
    unique_key: str = ""

    @property
    def place(self) -> tuple[int, int, int]:
        """Place among the messages that are ready: by priority, then by time, then by number."""
        return self.level, self.ready_ms, self.order

    def message(self) -> Message[Any]:
        """Return the message in the body."""
        return codec.decode(self.body, message_id=self.id, lane=self.lane)


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that was sent for the first time.

    Args:
        by_task: A task sent it.
        delay_ms: ``None`` where it was sent without a delay.
    """

    message: Message[Any]
    by_task: bool
    delay_ms: int | None
