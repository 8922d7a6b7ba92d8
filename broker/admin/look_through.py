"""Look through the first messages of queues, without changing them: 500 a call, so that no call holds the server up."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from broker.keys.queue_keys import ALL_LANES, Lane
from broker.queue.operations import QueueOperations
from broker.redis.scripts import script

# Waiting and scheduled messages of a queue that are looked through.
MOST: Final = 10_000
AT_ONCE: Final = 500
LOOK: Final = script("look", folder="")
PLACES: Final = ("waiting", "scheduled", "leased")


class SeenMessage(msgspec.Struct, frozen=True, gc=False):
    """A message and its place. Not tracked by the garbage collector, which ten thousand would start many times.

    Args:
        place: ``waiting``, ``scheduled`` or ``leased``.
        due_at: When it is scheduled for, ms since the epoch.
        lease_owner: Owner of its lease.
    """

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

    @property
    def enqueued_at(self) -> int:
        """Time of enqueueing, ms since the epoch."""
        return self.options.enqueued_at or self.sent_at


_FIELDS: Final = msgspec.json.Decoder(SentFields)
_COMPARED: Final = msgspec.json.Decoder(ComparedFields)


def fields_of(body: bytes) -> SentFields | None:
    """Return the fields of a body, or ``None`` when it is no message."""
    try:
        return _FIELDS.decode(body)
    except msgspec.MsgspecError:
        return None


def compared_fields_of(body: bytes) -> ComparedFields | None:
    """Return the fields of a body that filters compare, or ``None`` when it is no message."""
    try:
        return _COMPARED.decode(body)
    except msgspec.MsgspecError:
        return None


class Looked(NamedTuple):
    """Waiting messages that were looked through.

    Args:
        cut: Names of the queues that hold more messages than were looked through.
    """

    messages: list[SeenMessage]
    cut: list[str]


def look_through(families: Sequence[QueueOperations], *, places: Container[str] = PLACES, most: int = MOST) -> Looked:
    """Return the first messages of queues: the next to start, the next to be due, the oldest leases.

    A message that moves meanwhile may be missing, or be there twice. Where one place of a queue has fewer messages than
    its share, the others have more.

    Args:
        places: Of ``waiting``, ``scheduled`` and ``leased``.
        most: Messages of each queue.

    Raises:
        BrokerUnavailable: the server did not answer.
    """
    looked = Looked([], [])
    if not families:
        return looked
    calls = families[0].calls
    wanted = [place for family in families for place in _places_of(family, places)]
    counts = calls.pipeline([("ZCARD" if place.is_sorted else "LLEN", place.key) for place in wanted])
    reads: list[tuple[_Place, int, int]] = []
    for family in families:
        mine = [(place, count) for place, count in zip(wanted, counts, strict=True) if place.family is family]
        shares = shares_of([count for _, count in mine], most)
        for (place, _), share in zip(mine, shares, strict=True):
            reads += [(place, first, min(first + AT_ONCE, share) - 1) for first in range(0, share, AT_ONCE)]
        if sum(count for _, count in mine) > most:
            looked.cut.append(family.keys.queue)
    arguments = (
        ([place.key, place.family.keys.bodies], [first, last, "1" if place.is_sorted else "0"])
        for place, first, last in reads
    )
    for (place, _, _), (lengths, parts) in zip(reads, calls.stream(LOOK, arguments), strict=True):
        looked.messages.extend(_parsed(place, lengths, parts))
    if "leased" in places:
        looked.messages.extend(leased(families))
    return looked


def leased(families: Sequence[QueueOperations]) -> Iterator[SeenMessage]:
    """Yield the messages that workers hold, those of one owner oldest first; three round trips.

    Raises:
        BrokerUnavailable: the server did not answer.
    """
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


def _places_of(family: QueueOperations, places: Container[str]) -> Iterator[_Place]:
    for lane in ALL_LANES:
        if "waiting" in places:
            yield from (_Place(family, lane, key, is_sorted=False) for key in family.keys.waiting(lane))
        if "scheduled" in places:
            yield _Place(family, lane, family.keys.due(lane), is_sorted=True)


def _parsed(place: _Place, lengths: bytes, parts: bytes) -> Iterator[SeenMessage]:
    sizes = [int(length) for length in lengths.split()]
    name, queue, at = "scheduled" if place.is_sorted else "waiting", place.family.keys.queue, 0
    for id_size, due_size, size in zip(sizes[::3], sizes[1::3], sizes[2::3], strict=True):
        id_end = at + id_size
        due_end = id_end + due_size
        end = due_end + max(size, 0)
        due_at = int(float(parts[id_end:due_end])) if due_size else None
        if size >= 0:
            yield SeenMessage(_text(parts[at:id_end]), queue, place.lane, name, parts[due_end:end], due_at)
        at = end


def _text(raw: bytes) -> str:
    return str(raw, "utf-8", "replace")
