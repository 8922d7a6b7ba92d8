"""Lists of messages: of one lane page by page, and the first of several queues, without changing them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple

import msgspec
from dramatiq.message import Message

from switchyard.broker.keys import ALL_LANES, Lane
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import QueueOperations, by_weight, lane_of, leases_in, owners_of
from switchyard.broker.redis.own_keys import UNREADABLE, moment, utf8
from switchyard.broker.shapes import Page

Place = Literal["waiting", "scheduled"]


class BrowsedMessage(msgspec.Struct, frozen=True):
    """A message and its place; ``message`` is ``None`` when its body is missing or cannot be read."""

    id: str
    message: Message[Any] | None
    size_bytes: int
    due_at: int | None = None


def look(
    family: QueueOperations, lane: Lane, place: Place, *, cursor: int = 0, limit: int = 100
) -> Page[BrowsedMessage]:
    """Return a page of a lane's messages: the next to start first, the next to be due first.

    A message that moves meanwhile may be listed twice or not at all.
    """
    places: list[tuple[bytes, int | None]]
    if place == "waiting":
        places = [(id_, None) for id_ in _waiting(family, lane, cursor, limit)]
    else:
        key = family.keys.due(lane)
        [answer] = family.calls.look([("ZRANGE", key, cursor, cursor + limit - 1, "WITHSCORES")])
        places = [(id_, moment(score)) for id_, score in zip(answer[::2], answer[1::2], strict=True)]
    bodies = family.calls.look([("HMGET", family.keys.bodies, *(id_ for id_, _ in places))])[0] if places else []
    name = family.keys.lane_name(lane)
    seen = [_seen(id_, body, name, due_at) for (id_, due_at), body in zip(places, bodies, strict=True)]
    return Page(seen, cursor + limit if len(places) == limit else None)


def _waiting(family: QueueOperations, lane: Lane, cursor: int, limit: int) -> list[bytes]:
    found: list[bytes] = []
    for key in family.keys.waiting(lane):
        [length] = family.calls.look([("LLEN", key)])
        if cursor < length:
            found += family.calls.command("LRANGE", key, cursor, cursor + limit - len(found) - 1)
        cursor = max(cursor - length, 0)
        if len(found) == limit:
            break
    return found


def _seen(id_: bytes, body: bytes | None, lane_name: str, due_at: int | None) -> BrowsedMessage:
    name = utf8(id_)
    message: Message[Any] | None = None
    with suppress(codec.UnreadableMessage):
        message = codec.decode(body or b"", message_id=name, lane=lane_name)
    return BrowsedMessage(name, message, len(body or b""), due_at)


# Waiting and scheduled messages of a queue that are looked through.
MOST: Final = 10_000
# Bodies of one call, and of one round trip. With a script that joined ids and bodies a list of jobs took more than
# twice as long: docs/performance.md.
AT_ONCE: Final = 500
A_TRIP: Final = 2_000
PLACES: Final = ("waiting", "scheduled", "leased")


class SeenMessage(msgspec.Struct, frozen=True, gc=False):
    """A message and its place. Not tracked by the garbage collector, which ten thousand would start many times."""

    id: str
    queue: str
    lane: Lane
    place: str
    body: bytes
    due_at: int | None = None
    lease_owner: str = ""


class ComparedOptions(msgspec.Struct, frozen=True, gc=False):
    """The options that filters of lists compare."""

    enqueued_at: int | None = None
    owner: str | None = None
    parent: str | None = None
    tags: msgspec.Raw = msgspec.Raw(b"[]")


class ComparedFields(msgspec.Struct, frozen=True, gc=False):
    """The fields of a body that filters of lists compare. Everything else is skipped, which takes half of the time."""

    actor: str
    sent_at: int
    args: msgspec.Raw = msgspec.Raw(b"[]")
    kwargs: msgspec.Raw = msgspec.Raw(b"{}")
    options: ComparedOptions = ComparedOptions()


_COMPARED: Final = msgspec.json.Decoder(ComparedFields)


def compared_fields_of(body: bytes) -> ComparedFields | None:
    """Return the fields of a body, or ``None`` when it is no message."""
    try:
        return _COMPARED.decode(body)
    except UNREADABLE:
        return None


class Looked(NamedTuple):
    """Waiting messages that were looked through, and the names of the queues that hold more."""

    messages: list[SeenMessage]
    cut: list[str]


def look_through(families: Sequence[QueueOperations], *, places: Container[str] = PLACES, most: int = MOST) -> Looked:
    """Return the first messages of queues, ``most`` of each: the next to start, the next to be due, the oldest leases.

    A message that moves meanwhile may be missing, or be there twice. Where one place of a queue has fewer messages than
    its share, the others have more.
    """
    looked = Looked([], [])
    if not families:
        return looked
    calls = families[0].calls
    wanted = [place for family in families for place in _places_of(family, places)]
    counts = calls.look([("ZCARD" if place.is_sorted else "LLEN", place.key) for place in wanted])
    reads: list[tuple[_Place, int]] = []
    for family in families:
        mine = [(place, count) for place, count in zip(wanted, counts, strict=True) if place.family is family]
        shares = shares_of([count for _, count in mine], most)
        reads += [(place, share) for (place, _), share in zip(mine, shares, strict=True) if share]
        if sum(count for _, count in mine) > most:
            looked.cut.append(family.keys.queue)
    answers = calls.look([place.first(share) for place, share in reads])
    chunks = [
        chunk for (place, _), answer in zip(reads, answers, strict=True) for chunk in _chunks(place, answer, AT_ONCE)
    ]
    for trip in by_weight(chunks, lambda chunk: len(chunk.ids), heaviest=A_TRIP):
        bodies = calls.look([("HMGET", chunk.place.family.keys.bodies, *chunk.ids) for chunk in trip])
        for chunk, found in zip(trip, bodies, strict=True):
            looked.messages.extend(_messages(chunk, found))
    if "leased" in places:
        looked.messages.extend(leased(families))
    return looked


def leased(families: Sequence[QueueOperations]) -> Iterator[SeenMessage]:
    """Yield the messages that workers hold, those of one owner oldest first; three round trips."""
    if not families:
        return
    calls = families[0].calls
    leases = calls.look([("ZRANGE", family.keys.leases, 0, -1) for family in families])
    owners = [
        (family, owner)
        for family, found in zip(families, leases, strict=True)
        for owner in owners_of(found, family.keys.leases)
    ]
    holds = calls.look([("HGETALL", family.keys.hold(owner)) for family, owner in owners])
    held: list[tuple[QueueOperations, str, list[bytes]]] = []
    for (family, owner), hold in zip(owners, holds, strict=True):
        if tokens := leases_in(hold, family.keys.hold(owner)):
            held.append((family, owner, [id_ for _, id_ in tokens]))
    bodies = calls.look([("HMGET", family.keys.bodies, *ids) for family, _, ids in held])
    for (family, owner, ids), found in zip(held, bodies, strict=True):
        lane = lane_of(owner)
        for id_, body in zip(ids, found, strict=True):
            if body is not None:
                yield SeenMessage(utf8(id_), family.keys.queue, lane, "leased", body, None, owner)


def shares_of(counts: Sequence[int], most: int) -> list[int]:
    """Return how many of each count are taken, ``most`` together: the small ones whole, the large ones alike."""
    shares = [0] * len(counts)
    left = most
    for at, position in enumerate(sorted(range(len(counts)), key=lambda position: counts[position])):
        shares[position] = min(counts[position], left // (len(counts) - at))
        left -= shares[position]
    return shares


class _Place(NamedTuple):
    family: QueueOperations
    lane: Lane
    key: str
    is_sorted: bool

    def first(self, count: int) -> tuple[str | int, ...]:
        last = count - 1
        return ("ZRANGE", self.key, 0, last, "WITHSCORES") if self.is_sorted else ("LRANGE", self.key, 0, last)


class _Chunk(NamedTuple):
    """Ids of a place and, of scheduled messages, their due times (ms since the epoch)."""

    place: _Place
    ids: list[bytes]
    due: list[int | None]


def _places_of(family: QueueOperations, places: Container[str]) -> Iterator[_Place]:
    for lane in ALL_LANES:
        if "waiting" in places:
            yield from (_Place(family, lane, key, is_sorted=False) for key in family.keys.waiting(lane))
        if "scheduled" in places:
            yield _Place(family, lane, family.keys.due(lane), is_sorted=True)


def _chunks(place: _Place, answer: list[bytes], size: int) -> Iterator[_Chunk]:
    ids = answer[::2] if place.is_sorted else answer
    due: list[int | None] = [moment(score) for score in answer[1::2]] if place.is_sorted else [None] * len(ids)
    for first in range(0, len(ids), size):
        yield _Chunk(place, ids[first : first + size], due[first : first + size])


def _messages(chunk: _Chunk, bodies: list[bytes | None]) -> list[SeenMessage]:
    """Return the messages of a chunk; one that left its queue meanwhile has no body."""
    place, name = chunk.place, "scheduled" if chunk.place.is_sorted else "waiting"
    queue, lane = place.family.keys.queue, place.lane
    return [
        SeenMessage(utf8(id_), queue, lane, name, body, due)
        for id_, due, body in zip(chunk.ids, chunk.due, bodies, strict=True)
        if body is not None
    ]
