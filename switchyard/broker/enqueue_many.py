"""Enqueueing of many messages: 500 of a lane in one call to the server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from dramatiq.actor import Actor
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.keys.queue_keys import Lane
from switchyard.broker.queue.codec import entry_of
from switchyard.broker.queue.depth_limits import DepthLimits
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.worker.ack_barrier import AckBarrier, record_enqueued
from switchyard.broker.worker.hooks import Hooks


class EnqueueingBroker(Protocol):
    """The part of :class:`switchyard.broker.redis_broker.RedisBroker` that this module uses."""

    actors: dict[str, Actor[..., Any]]
    barrier: AckBarrier | None
    hooks: Hooks
    limits: DepthLimits
    middleware: list[Middleware]

    def lane(self, queue_name: str) -> tuple[QueueOperations, Lane]: ...

    def level(self, message: Message[Any]) -> int: ...

    def emit_before(self, signal: str, *args: Any) -> None: ...

    def emit_after(self, signal: str, *args: Any) -> None: ...


def enqueue_in_batches(
    broker: EnqueueingBroker, messages: Iterable[Message[Any]], delay: int | None
) -> list[Message[Any]]:
    """Enqueue messages, see :meth:`switchyard.broker.redis_broker.RedisBroker.enqueue_many`."""
    messages = list(messages)
    by_lane: dict[tuple[str, int], list[int]] = {}
    has_before, has_after = (broker.hooks.named(f"{when}_enqueue", broker.middleware) for when in ("before", "after"))
    for position, message in enumerate(messages):
        if has_before:
            broker.emit_before("enqueue", message, delay)
        by_lane.setdefault((message.queue_name, broker.level(message)), []).append(position)
    standing = [message.message_id for message in messages]
    queues: set[str] = set()
    for (queue_name, level), positions in by_lane.items():
        family, lane = broker.lane(queue_name)
        queues.add(family.keys.queue)
        limit = broker.limits.of(queue_name)
        entries = (entry_of(messages[position], broker.actors) for position in positions)
        ids = family.enqueue(entries, lane=lane, delay_ms=delay or 0, level=level, limit=limit)
        for position, id_ in zip(positions, ids, strict=True):
            standing[position] = id_
    for position, message in enumerate(messages):
        if standing[position] != message.message_id:
            broker.emit_after("yield_to_holder", message)
            messages[position] = message.copy(message_id=standing[position])
        elif has_after:
            broker.emit_after("enqueue", message, delay)
    record_enqueued(broker.barrier, len(messages), *queues)
    return messages
