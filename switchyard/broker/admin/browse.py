"""List the messages of a lane page by page, without changing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dramatiq.message import Message

from switchyard.broker.keys.queue_keys import Lane
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.shapes import Page

Place = Literal["waiting", "scheduled", "leased"]


@dataclass(frozen=True, slots=True)
class BrowsedMessage:
    """A message and its place; ``message`` is ``None`` when its body is missing or cannot be read."""

    id: str
    message: Message[Any] | None
    size_bytes: int
    due_at: int | None = None
    owner: str | None = None


def look(
    family: QueueOperations, lane: Lane, place: Place, *, cursor: int = 0, limit: int = 100
) -> Page[BrowsedMessage]:
    """Return a page of a lane's messages: the next to start first, the next to be due first, the oldest lease first.

    A message that moves meanwhile may be listed twice or not at all.
    """
    places: list[tuple[bytes, int | None, str | None]]
    if place == "waiting":
        places = [(id_, None, None) for id_ in _waiting(family, lane, cursor, limit)]
    elif place == "scheduled":
        key = family.keys.due(lane)
        answer = family.calls.command("ZRANGE", key, cursor, cursor + limit - 1, "WITHSCORES")
        places = [(id_, int(float(score)), None) for id_, score in zip(answer[::2], answer[1::2], strict=True)]
    else:
        held = [(lease, owner) for owner in family.owners() if owner.endswith(lane) for lease in family.held(owner)]
        held.sort(key=lambda pair: int(pair[0].token))
        places = [(lease.id, None, owner) for lease, owner in held[cursor : cursor + limit]]
    bodies = family.calls.command("HMGET", family.keys.bodies, *(id_ for id_, _, _ in places)) if places else []
    seen = [
        _seen(id_, body, family.keys.lane_name(lane), due_at, owner)
        for (id_, due_at, owner), body in zip(places, bodies, strict=True)
    ]
    return Page(seen, cursor + limit if len(places) == limit else None)


def _waiting(family: QueueOperations, lane: Lane, cursor: int, limit: int) -> list[bytes]:
    found: list[bytes] = []
    for key in family.keys.waiting(lane):
        length = family.calls.command("LLEN", key)
        if cursor < length:
            found += family.calls.command("LRANGE", key, cursor, cursor + limit - len(found) - 1)
        cursor = max(cursor - length, 0)
        if len(found) == limit:
            break
    return found


def _seen(id_: bytes, body: bytes | None, lane_name: str, due_at: int | None, owner: str | None) -> BrowsedMessage:
    name = str(id_, "utf-8", "replace")
    message = None
    if body is not None:
        try:
            message = codec.decode(body, message_id=name, lane=lane_name)
        except codec.UnreadableMessage:
            message = None
    return BrowsedMessage(name, message, 0 if body is None else len(body), due_at, owner)
