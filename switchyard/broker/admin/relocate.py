"""Move the waiting messages of an actor to another queue, which another pool may serve."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from switchyard.broker.keys.queue_keys import Lane
from switchyard.broker.queue import administration, codec
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.queue.results import HIGH, LOW, NORMAL, Lease, MovingMessage

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
    it is dropped from the old one: a kill in between leaves up to ``batch`` messages (at most 500) in both queues,
    until the call is repeated. A message keeps its priority, its crashes, a request to cancel it, and its unique key,
    unless another message holds the key in the new queue.
    """
    owner = f"relocate.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}/{lane}"
    source.join(owner)
    looked_at = moved = 0
    waiting = [administration.depth(source, lane, level) for level in (HIGH, NORMAL, LOW)]
    for level, depth in zip((HIGH, NORMAL, LOW), waiting, strict=True):
        left = depth
        while left > 0 and (taken := administration.take(source, owner, min(batch, left), level=level)):
            going, staying = _sorted(taken, actor, source.keys.lane_name(lane))
            to_place = going
            while to_place:
                administration.place(target, to_place, lane=lane, level=level)
                to_place = administration.forget(source, owner, to_place)
            if going:  # a retry's record; from here on its message in the other queue says where the job is
                ids = [one.lease.id for one in going]
                source.calls.pipeline([("HDEL", key, *ids) for key in (source.keys.jobs, source.keys.progress)])
            source.release(owner, staying, side="tail")
            source.renew([owner])
            left -= len(taken)
            looked_at += len(taken)
            moved += len(going)
            yield Relocated(looked_at, moved, sum(waiting))
    source.reclaim(owner)


def _sorted(taken: list[MovingMessage], actor: str, lane_name: str) -> tuple[list[MovingMessage], list[Lease]]:
    going: list[MovingMessage] = []
    staying: list[Lease] = []
    for one in taken:
        if one.body is not None and _is_for(actor, one.body, lane_name):
            going.append(one)
        else:
            staying.append(one.lease)
    return going, staying


def _is_for(actor: str, body: bytes, lane_name: str) -> bool:
    try:
        return codec.decode(body, message_id=codec.ANY_ID, lane=lane_name).actor_name == actor
    except codec.UnreadableMessage:
        return False  # a consumer moves it to the quarantine
