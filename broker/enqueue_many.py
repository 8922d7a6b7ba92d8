"""Enqueueing of many messages: 500 of a lane in one call to the server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from dramatiq.message import Message

from broker.keys.queue_keys import Lane
from broker.queue.codec import entry_of
from broker.queue.operations import QueueOperations


class EnqueueingBroker(Protocol):
    """The part of :class:`broker.redis_broker.RedisBroker` that this module uses."""

    def lane(self, queue_name: str) -> tuple[QueueOperations, Lane]:
        """Return queue family and lane behind a queue's name."""

    def level(self, message: Message[Any]) -> int:
        """Return the priority level of a message."""

    def limit_of(self, queue_name: str) -> int:
        """Return how many messages a queue may hold."""

    def has_hooks(self, name: str) -> bool:
        """Whether a middleware implements a hook."""

    def emit_before(self, signal: str, *args: Any) -> None:
        """Call the hooks of a signal."""

    def emit_after(self, signal: str, *args: Any) -> None:
        """Call the hooks of a signal."""

    def record_enqueued(self, count: int) -> None:
        """Write the job records of messages that were enqueued."""


def enqueue_in_batches(
    broker: EnqueueingBroker, messages: Iterable[Message[Any]], delay: int | None
) -> list[Message[Any]]:
    """Enqueue messages, see :meth:`broker.redis_broker.RedisBroker.enqueue_many`."""
    messages = list(messages)
    by_lane: dict[tuple[str, int], list[int]] = {}
    has_before, has_after = broker.has_hooks("before_enqueue"), broker.has_hooks("after_enqueue")
    for position, message in enumerate(messages):
        if has_before:
            broker.emit_before("enqueue", message, delay)
        by_lane.setdefault((message.queue_name, broker.level(message)), []).append(position)
    standing = [message.message_id for message in messages]
    for (queue_name, level), positions in by_lane.items():
        family, lane = broker.lane(queue_name)
        limit = broker.limit_of(queue_name)
        entries = (entry_of(messages[position]) for position in positions)
        ids = family.enqueue(entries, lane=lane, delay_ms=delay or 0, level=level, limit=limit)
        for position, id_ in zip(positions, ids, strict=True):
            standing[position] = id_
    for position, message in enumerate(messages):
        if standing[position] != message.message_id:
            messages[position] = message.copy(message_id=standing[position])
        elif has_after:
            broker.emit_after("enqueue", message, delay)
    broker.record_enqueued(len(messages))
    return messages
