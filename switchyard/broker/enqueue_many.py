"""Enqueueing of many messages: 500 of a lane in one call to the server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from dramatiq.actor import Actor
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.clock import now_ms
from switchyard.broker.keys import Lane
from switchyard.broker.queue.administration import DepthLimits
from switchyard.broker.queue.codec import entry_of
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.worker.acks import AckBarrier, record_enqueued
from switchyard.broker.worker.hooks import Hooks

IDS_AT_ONCE = 256


def messages(actor: Actor[..., Any], calls: Iterable[tuple[Any, ...]], **options: Any) -> Iterator[Message[Any]]:
    """Yield a message for each call (its positional arguments), for ``RedisBroker.enqueue_many``.

    ``options`` are those of each message, as for ``send_with_options``.
    """
    queue_name, actor_name, ids = actor.queue_name, actor.actor_name, unique_ids()
    for args in calls:
        yield Message(queue_name, actor_name, args, {}, dict(options), next(ids), now_ms())


def unique_ids() -> Iterator[str]:
    """Yield random UUIDs (version 4, RFC 9562) without end, 256 for one read of the system's randomness.

    0.6 µs each; ``str(uuid.uuid4())`` takes 2.6 µs, which a million messages notice.
    """
    while True:
        digits = os.urandom(16 * IDS_AT_ONCE).hex()
        for start in range(0, len(digits), 32):
            part = digits[start : start + 32]
            variant = "89ab"[int(part[16], 16) & 3]
            yield f"{part[:8]}-{part[8:12]}-4{part[13:16]}-{variant}{part[17:20]}-{part[20:]}"


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
