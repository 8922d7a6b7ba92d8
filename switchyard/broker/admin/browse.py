"""Lists of messages, read without changing them: a lane page by page, the first of several queues, the place of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
from dramatiq.message import Message

from switchyard.broker.admin.stats import pause_of
from switchyard.broker.keys import ALL_LANES, Lane
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import ACTOR_PAUSE, QueueOperations, lane_of, leases_in, owners_of
from switchyard.broker.redis.calls import Word
from switchyard.broker.redis.own_keys import UNREADABLE, moment, read, utf8
from switchyard.broker.shapes import ActorPause, Page, QueuePause

# Waiting and scheduled messages of a queue that are looked through.
MOST: Final = 10_000
# Bodies of one call, and of one round trip. With a script that joined ids and bodies a list of jobs took more than
# twice as long: docs/performance.md.
AT_ONCE: Final = 500
A_TRIP: Final = 2_000
PLACES: Final = ("waiting", "scheduled", "leased")


Where = Literal["waiting", "scheduled"]


class SeenMessage(msgspec.Struct, frozen=True, gc=False):
    """A message and its place. Not tracked by the garbage collector, which ten thousand would start many times."""

    id: str
    queue: str
    lane: Lane
    place: str
    body: bytes
    due_at: int | None = None
    lease_owner: str = ""

    @property
    def message(self) -> Message[Any] | None:
        """The message in the body, read anew each time; ``None`` when it cannot be read."""
        name = self.queue if self.lane == "live" else f"{self.queue}-{self.lane}"
        try:
            return codec.decode(self.body, message_id=self.id, lane=name)
        except codec.UnreadableMessage:
            return None


class Listed(NamedTuple):
    """A message on a list whose body is not read yet; ``due_at`` in ms since the epoch, of a scheduled one."""

    family: QueueOperations
    lane: Lane
    place: str
    id: bytes
    due_at: int | None = None
    owner: str = ""


def with_bodies(entries: Sequence[Listed]) -> list[SeenMessage]:
    """Return messages with their bodies, in one round trip; one that has left its queue meanwhile is left out."""
    if not entries:
        return []
    ids: dict[QueueOperations, list[bytes]] = {}
    for entry in entries:
        ids.setdefault(entry.family, []).append(entry.id)
    chunks = [(family, its[at : at + AT_ONCE]) for family, its in ids.items() for at in range(0, len(its), AT_ONCE)]
    answers = entries[0].family.calls.look([("HMGET", family.keys.bodies, *chunk) for family, chunk in chunks])
    bodies = {
        (family, id_): body
        for (family, chunk), found in zip(chunks, answers, strict=True)
        for id_, body in zip(chunk, found, strict=True)
    }
    return [
        SeenMessage(utf8(id_), family.keys.queue, lane, place, body, due_at, owner)
        for family, lane, place, id_, due_at, owner in entries
        if (body := bodies[family, id_]) is not None
    ]


def entries_of(family: QueueOperations, lane: Lane, place: Where, answer: list[bytes]) -> list[Listed]:
    """Return the ids in an answer; that of a schedule has their due times as well."""
    if place == "waiting":
        return [Listed(family, lane, place, id_) for id_ in answer]
    return [Listed(family, lane, place, id_, moment(at)) for id_, at in zip(answer[::2], answer[1::2], strict=True)]


def look(family: QueueOperations, lane: Lane, place: Where, *, cursor: int = 0, limit: int = 100) -> Page[SeenMessage]:
    """Return a page of a lane's messages: the next to start first, the next to be due first.

    A message that moves meanwhile may be listed twice or not at all.
    """
    if place == "waiting":
        answer = _waiting(family, lane, cursor, limit)
    else:
        last = cursor + limit - 1
        [answer] = family.calls.look([("ZRANGE", family.keys.due(lane), cursor, last, "WITHSCORES")])
    entries = entries_of(family, lane, place, answer)
    return Page(with_bodies(entries), cursor + limit if len(entries) == limit else None)


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


_FIELDS: Final = msgspec.json.Decoder(ComparedFields)


def compared_fields_of(body: bytes) -> ComparedFields | None:
    """Return the fields of a body, or ``None`` when it is no message."""
    try:
        return _FIELDS.decode(body)
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
    lists = [each for family in families for each in _lists_of(family, places)]
    counts = calls.look([("LLEN" if each.place == "waiting" else "ZCARD", each.key) for each in lists])
    reads: list[tuple[_List, int]] = []
    for family in families:
        mine = [(each, count) for each, count in zip(lists, counts, strict=True) if each.family is family]
        shares = shares_of([count for _, count in mine], most)
        reads += [(each, share) for (each, _), share in zip(mine, shares, strict=True) if share]
        if sum(count for _, count in mine) > most:
            looked.cut.append(family.keys.queue)
    commands: list[tuple[str | int, ...]] = [
        ("LRANGE", one.key, 0, share - 1) if one.place == "waiting" else ("ZRANGE", one.key, 0, share - 1, "WITHSCORES")
        for one, share in reads
    ]
    entries: list[Listed] = []
    for (one, _), answer in zip(reads, calls.look(commands), strict=True):
        entries += entries_of(one.family, one.lane, one.place, answer)
    for at in range(0, len(entries), A_TRIP):
        looked.messages.extend(with_bodies(entries[at : at + A_TRIP]))
    if "leased" in places:
        looked.messages.extend(leased(families))
    return looked


def leased(families: Sequence[QueueOperations]) -> list[SeenMessage]:
    """Return the messages that workers hold, those of one owner oldest first; three round trips."""
    if not families:
        return []
    calls = families[0].calls
    leases = calls.look([("ZRANGE", family.keys.leases, 0, -1) for family in families])
    owners = [
        (family, owner)
        for family, found in zip(families, leases, strict=True)
        for owner in owners_of(found, family.keys.leases)
    ]
    holds = calls.look([("HGETALL", family.keys.hold(owner)) for family, owner in owners])
    return with_bodies(
        [
            Listed(family, lane_of(owner), "leased", id_, None, owner)
            for (family, owner), hold in zip(owners, holds, strict=True)
            for _, id_ in leases_in(hold, family.keys.hold(owner))
        ]
    )


def shares_of(counts: Sequence[int], most: int) -> list[int]:
    """Return how many of each count are taken, ``most`` together: the small ones whole, the large ones alike."""
    shares = [0] * len(counts)
    left = most
    for at, position in enumerate(sorted(range(len(counts)), key=lambda position: counts[position])):
        shares[position] = min(counts[position], left // (len(counts) - at))
        left -= shares[position]
    return shares


class _List(NamedTuple):
    family: QueueOperations
    lane: Lane
    place: Where
    key: str


def _lists_of(family: QueueOperations, places: Container[str]) -> Iterator[_List]:
    for lane in ALL_LANES:
        if "waiting" in places:
            yield from (_List(family, lane, "waiting", key) for key in family.keys.waiting(lane))
        if "scheduled" in places:
            yield _List(family, lane, "scheduled", family.keys.due(lane))


# Ids that the server compares at each end of a waiting list: 0.1 ms. A place between them is not searched for.
COMPARED: Final = 10_000
# Messages that start before it and are counted by actor.
SAMPLED: Final = 200


class Place(msgspec.Struct, frozen=True):
    """Where a message is, and what stops its queue.

    Args:
        lane: ``None`` where it neither waits nor is scheduled: it has ended meanwhile, or a purge set it aside.
        due_at: Of a scheduled one, ms since the epoch by the server's clock; of one that is put off later than any.
        ahead: Messages of its lane that start before it; with ``more`` at least so many.
        actors: Of the first of them, at most ``SAMPLED``.
        pauses: Of actors, and open circuits; those that have ended are among them until a worker fetches.
    """

    lane: Lane | None
    due_at: int | None
    ahead: int
    more: bool
    actors: Counter[str]
    pause: QueuePause | None
    pauses: tuple[ActorPause, ...]


def place_of(family: QueueOperations, message_id: str, at: int) -> Place:
    """Return the place of a message that no worker holds at a time, ms since the epoch: what is due by then waits."""
    keys = family.keys
    reads: list[tuple[Word, ...]] = [
        ("GET", keys.paused),
        ("HGETALL", keys.actor_pauses),
        ("HEXISTS", keys.bodies, message_id),
    ]
    for lane in ALL_LANES:
        due = keys.due(lane)
        reads += [("ZSCORE", due, message_id), ("ZREVRANK", due, message_id), ("ZCARD", due)]
        for key in keys.waiting(lane):
            reads.append(("LLEN", key))
            reads += [("LPOS", key, message_id, "RANK", end, "MAXLEN", COMPARED) for end in (1, -1)]
    paused, pauses, is_there, *of_lanes = family.calls.look(reads)
    found = [read(ACTOR_PAUSE, text, keys.actor_pauses) for text in pauses[1::2]]
    place, due_at, ahead, more, lists = _found(family, of_lanes, at, is_there=bool(is_there))
    sample = family.calls.look([("LRANGE", key, 0, SAMPLED - 1) for key in lists]) if ahead else []
    ids = [id_ for part in sample for id_ in part][: min(ahead, SAMPLED)]
    bodies = family.calls.look([("HMGET", keys.bodies, *ids)])[0] if ids else []
    read_fields = (compared_fields_of(body) for body in bodies if body is not None)
    return Place(
        lane=place,
        due_at=due_at,
        ahead=ahead,
        more=more,
        actors=Counter(fields.actor for fields in read_fields if fields is not None),
        pause=pause_of(paused, keys.paused),
        pauses=tuple(each for each in found if each is not None),
    )


_Found = tuple[Lane | None, int | None, int, bool, Sequence[str]]


def _found(family: QueueOperations, answers: Sequence[Any], at: int, *, is_there: bool) -> _Found:
    """Return lane, due time, number ahead and whether there are more, and the lists that start with those ahead."""
    width = len(answers) // len(ALL_LANES)
    found: _Found = (None, None, 0, False, ())
    for number, lane in enumerate(ALL_LANES):
        score, behind, scheduled, *lists = answers[number * width : (number + 1) * width]
        keys, before = family.keys.waiting(lane), 0
        lengths = [int(length or 0) for length in lists[::3]]
        if score:
            due_at = moment(score)
            # Once it is due it goes behind what waits, of the normal priority or a higher one, and what was due before.
            ahead = sum(lengths[:2]) + max(scheduled - 1 - int(behind or 0), 0) if due_at <= at else 0
            return lane, due_at, ahead, False, keys[:2]
        for level, length in enumerate(lengths):
            places = [place for place in lists[3 * level + 1 : 3 * level + 3] if type(place) is int]
            if places:
                return lane, None, before + places[0], False, keys[: level + 1]
            if length > 2 * COMPARED and found[0] is None and is_there:
                found = lane, None, before + COMPARED, True, keys[: level + 1]
            before += length
    return found
