"""Move the waiting messages of an actor to another queue, which another pool may serve."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from broker.keys.queue_keys import Lane
from broker.queue import administration, codec
from broker.queue.operations import HIGH, LOW, NORMAL, QueueOperations
from broker.queue.results import Entry, Lease

BATCH = 200


@dataclass(frozen=True, slots=True)
class Relocated:
    """Progress of a relocation: messages that waited at first, that were read, and that were moved."""

    looked_at: int
    moved: int
    waiting: int


def relocate(
    source: QueueOperations, target: QueueOperations, *, actor: str, lane: Lane = "live", batch: int = BATCH
) -> Iterator[Relocated]:
    """Move what waits for an actor in a lane to the same lane of another family; yield the progress after each batch.

    The waiting list is rotated once: messages that stay go to its end, in their order. Workers continue meanwhile, and
    a paused queue stays paused. The two queues may lie on different nodes, so a message is put into the new one before
    it is dropped from the old one: a kill in between leaves up to ``batch`` messages in both queues.

    Args:
        batch: Messages in hand at a time, at most 500.
    """
    owner = f"relocate.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}/{lane}"
    source.join(owner)
    looked_at = moved = 0
    waiting = [administration.depth(source, lane, level) for level in (HIGH, NORMAL, LOW)]
    for level, depth in zip((HIGH, NORMAL, LOW), waiting, strict=True):
        left = depth
        while left > 0 and (taken := administration.take(source, owner, min(batch, left), level=level)):
            going, staying = _sorted(taken, actor, source.keys.lane_name(lane))
            target.enqueue([Entry(str(lease.id, "ascii"), body) for lease, body in going], lane=lane, level=level)
            administration.forget(source, owner, [lease for lease, _ in going])
            source.release(owner, staying, side="tail")
            source.renew([owner])
            left -= len(taken)
            looked_at += len(taken)
            moved += len(going)
            yield Relocated(looked_at, moved, sum(waiting))
    source.reclaim(owner)


def _sorted(
    taken: list[tuple[Lease, bytes | None]], actor: str, lane_name: str
) -> tuple[list[tuple[Lease, bytes]], list[Lease]]:
    going: list[tuple[Lease, bytes]] = []
    staying: list[Lease] = []
    for lease, body in taken:
        if body is not None and _is_for(actor, body, lane_name):
            going.append((lease, body))
        else:
            staying.append(lease)
    return going, staying


def _is_for(actor: str, body: bytes, lane_name: str) -> bool:
    try:
        return codec.decode(body, message_id="", lane=lane_name).actor_name == actor
    except codec.UnreadableMessage:
        return False  # a consumer moves it to the quarantine
