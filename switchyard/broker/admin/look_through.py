"""Look through the first messages of queues, without changing them: 500 bodies a call, so that no call takes long."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from switchyard.broker.keys.queue_keys import ALL_LANES, Lane
from switchyard.broker.queue.operations import QueueOperations

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


class SentFields(msgspec.Struct, frozen=True):
    """The fields of a body; arguments stay JSON until somebody reads them."""

    actor: str
    sent_at: int
    args: msgspec.Raw = msgspec.Raw(b"[]")
    kwargs: msgspec.Raw = msgspec.Raw(b"{}")
    options: dict[str, Any] = {}


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


_FIELDS: Final = msgspec.json.Decoder(SentFields)
_COMPARED: Final = msgspec.json.Decoder(ComparedFields)


def fields_of(body: bytes) -> SentFields | None:
    """Return the fields of a body, or ``None`` when it is no message."""
    try:
        return _FIELDS.decode(body)
    except msgspec.MsgspecError:
        return None


def compared_fields_of(body: bytes) -> ComparedFields | None:
    try:
        return _COMPARED.decode(body)
    except msgspec.MsgspecError:
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
    counts = calls.pipeline([("ZCARD" if place.is_sorted else "LLEN", place.key) for place in wanted])
    reads: list[tuple[_Place, int]] = []
    for family in families:
        mine = [(place, count) for place, count in zip(wanted, counts, strict=True) if place.family is family]
        shares = shares_of([count for _, count in mine], most)
        reads += [(place, share) for (place, _), share in zip(mine, shares, strict=True) if share]
        if sum(count for _, count in mine) > most:
            looked.cut.append(family.keys.queue)
    answers = calls.pipeline([place.first(share) for place, share in reads])
    chunks = [
        chunk for (place, _), answer in zip(reads, answers, strict=True) for chunk in _chunks(place, answer, AT_ONCE)
    ]
    for trip in _trips(chunks, A_TRIP):
        bodies = calls.pipeline([("HMGET", chunk.place.family.keys.bodies, *chunk.ids) for chunk in trip])
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
    leases = calls.pipeline([("ZRANGE", family.keys.leases, 0, -1) for family in families])
    owners = [(family, _text(owner)) for family, found in zip(families, leases, strict=True) for owner in found]
    holds = calls.pipeline([("HGETALL", family.keys.hold(owner)) for family, owner in owners])
    held: list[tuple[QueueOperations, str, list[bytes]]] = []
    for (family, owner), hold in zip(owners, holds, strict=True):
        tokens = sorted((int(token), id_) for id_, token in zip(hold[::2], hold[1::2], strict=True) if id_ != b"#")
        if tokens:
            held.append((family, owner, [id_ for _, id_ in tokens]))
    bodies = calls.pipeline([("HMGET", family.keys.bodies, *ids) for family, _, ids in held])
    for (family, owner, ids), found in zip(held, bodies, strict=True):
        lane: Lane = next((lane for lane in ALL_LANES if owner.endswith(f"/{lane}")), "live")
        for id_, body in zip(ids, found, strict=True):
            if body is not None:
                yield SeenMessage(_text(id_), family.keys.queue, lane, "leased", body, None, owner)


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
        return (
            ("ZRANGE", self.key, 0, count - 1, "WITHSCORES") if self.is_sorted else ("LRANGE", self.key, 0, count - 1)
        )


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
    due: list[int | None] = [int(float(score)) for score in answer[1::2]] if place.is_sorted else [None] * len(ids)
    for first in range(0, len(ids), size):
        yield _Chunk(place, ids[first : first + size], due[first : first + size])


def _trips(chunks: Sequence[_Chunk], size: int) -> Iterator[list[_Chunk]]:
    """Yield chunks that share a round trip: of ``size`` messages together, or a single one."""
    trip: list[_Chunk] = []
    held = 0
    for chunk in chunks:
        if trip and held + len(chunk.ids) > size:
            yield trip
            trip, held = [], 0
        trip.append(chunk)
        held += len(chunk.ids)
    if trip:
        yield trip


def _messages(chunk: _Chunk, bodies: list[bytes | None]) -> list[SeenMessage]:
    """Return the messages of a chunk; one that left its queue meanwhile has no body."""
    place, name = chunk.place, "scheduled" if chunk.place.is_sorted else "waiting"
    queue, lane = place.family.keys.queue, place.lane
    return [
        SeenMessage(str(id_, "utf-8", "replace"), queue, lane, name, body, due)
        for id_, due, body in zip(chunk.ids, chunk.due, bodies, strict=True)
        if body is not None
    ]


def _text(raw: bytes) -> str:
    return str(raw, "utf-8", "replace")
