"""Figures and lists of messages, read without changing them: of a family, of a lane page by page, the place of one."""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
from dramatiq.message import Message

from switchyard.broker.clock import CIRCUIT_SPAN_MS, CIRCUITS_MS, FAIR_MS, LAST_PUT_OFF_MS, now_ms
from switchyard.broker.keys import ALL_LANES, Lane, QueueKeys
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import ACTOR_PAUSE, QueueOperations, lane_of, leases_in, owners_of
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.own_keys import UNREADABLE, moment, number, read, utf8
from switchyard.broker.shapes import ActorPause, LaneStats, OpenCircuit, Page, QueuePause, QueueStats

COUNTED: Final[tuple[tuple[Lane, ...], ...]] = (("live", "alone"), ("retry",))


def family_stats(calls: RedisCalls, keys: QueueKeys, *, ages_held: bool = False) -> QueueStats:
    """Return depth, age and state of both lanes, and what is dead or unreadable. Messages that run alone count as live.

    With ``ages_held`` it finds the age of the oldest held message as well, in two more round trips.
    """
    # Not in a MULTI: a full Redis 7 refuses every one, even of reads.
    reads: list[tuple[Word, ...]] = [
        ("ZRANGE", keys.leases, 0, -1),
        ("LLEN", keys.dead),
        ("LLEN", keys.quarantine),
        ("GET", keys.paused),
        ("GET", keys.token),
        ("HGETALL", keys.yields),
        ("HGETALL", keys.sends),
        ("HGETALL", keys.actor_pauses),
        ("ZCOUNT", keys.due("live"), FAIR_MS, LAST_PUT_OFF_MS),
        ("ZRANGEBYSCORE", keys.due("live"), FAIR_MS, LAST_PUT_OFF_MS, "LIMIT", 0, 1),
        *(("ZCARD", keys.parked(lane)) for lane in ALL_LANES),
    ]
    for lane in ALL_LANES:
        reads.append(("ZCARD", keys.due(lane)))
        for waiting in keys.waiting(lane):
            reads += [("LLEN", waiting), ("LINDEX", waiting, 0)]
    owners, dead, quarantined, paused, issued, yields, sends, pauses, in_line, first, *of_lanes = calls.look(reads)
    parked, of_lanes = sum(of_lanes[: len(ALL_LANES)]), of_lanes[len(ALL_LANES) :]
    width = len(of_lanes) // len(ALL_LANES)
    by_lane = {lane: of_lanes[at * width : (at + 1) * width] for at, lane in enumerate(ALL_LANES)}
    holds = [(lane_of(owner), keys.hold(owner)) for owner in owners_of(owners, keys.leases)]
    reads = []
    for _, hold in holds:
        reads += [("HLEN", hold), ("HEXISTS", hold, "#")]
    # A message in a line of a fair lane waits, although its schedule holds it.
    by_lane["live"][0] -= in_line
    by_lane["live"] += [in_line, *first]
    reads += [("HMGET", keys.bodies, *filter(None, by_lane[lane][2::2]), "") for lane in ALL_LANES]
    found = [read(ACTOR_PAUSE, text, keys.actor_pauses) for text in pauses[1::2]]
    circuits = [one for one in found if one is not None and one.is_open]
    for one in circuits:
        first = CIRCUITS_MS + one.slot * CIRCUIT_SPAN_MS
        reads += [("ZCOUNT", keys.due(lane), first, first + CIRCUIT_SPAN_MS - 1) for lane in ALL_LANES]
    answers = calls.look(reads)
    put_off = answers[len(answers) - len(ALL_LANES) * len(circuits) :]
    *held, live_bodies, retry_bodies, alone_bodies = answers[: len(answers) - len(put_off)]
    running: dict[str, int] = dict.fromkeys(ALL_LANES, 0)
    for (lane, _), count, numbered in zip(holds, held[::2], held[1::2], strict=True):
        running[lane] += count - bool(numbered)
    live, retry = (
        LaneStats(
            name=keys.lane_name(lanes[0]),
            waiting=sum(count for lane in lanes for count in by_lane[lane][1::2]),
            scheduled=sum(by_lane[lane][0] for lane in lanes),
            running=sum(running[lane] for lane in lanes),
            oldest_age_ms=_oldest_age_ms(bodies),
        )
        for lanes, bodies in zip(COUNTED, ([*live_bodies, *alone_bodies], retry_bodies), strict=True)
    )
    pause = pause_of(paused, keys.paused)
    return QueueStats(
        keys.queue,
        live,
        retry,
        dead=dead,
        quarantined=quarantined,
        paused=pause is not None,
        parked=parked,
        pause=pause,
        oldest_held_age_ms=_oldest_held_age_ms(calls, keys, holds) if ages_held else None,
        issued=number(issued, keys.token),
        yields=_by_actor(yields, keys.yields),
        sends=_by_actor(sends, keys.sends),
        circuits=tuple(
            OpenCircuit(one, sum(put_off[len(ALL_LANES) * at : len(ALL_LANES) * (at + 1)]))
            for at, one in enumerate(circuits)
        ),
    )


def _by_actor(fields: list[bytes], key: str) -> dict[str, int]:
    return {utf8(actor): number(count, key) for actor, count in zip(fields[::2], fields[1::2], strict=True)}


def _oldest_held_age_ms(calls: RedisCalls, keys: QueueKeys, holds: list[tuple[Lane, str]]) -> int | None:
    """Return the age of the oldest held message. A worker runs its messages in the order of their tokens."""
    counted = [hold for lane, hold in holds if lane in COUNTED[0]]
    held = calls.look([("HGETALL", hold) for hold in counted])
    pairs = [leases_in(answer, hold) for answer, hold in zip(held, counted, strict=True)]
    oldest = [of_owner[0][1] for of_owner in pairs if of_owner]
    return _oldest_age_ms(calls.look([("HMGET", keys.bodies, *oldest)])[0]) if oldest else None


def pauses_in(families: Sequence[QueueOperations]) -> list[ActorPause]:
    """Return the pauses in force in any of the families, by actor, and open circuits; a round trip to each server."""
    found: dict[str, ActorPause] = {}
    reads = [("HVALS", family.keys.actor_pauses) for family in families]
    answers = families[0].calls.look(reads) if families else []
    for family, texts in zip(families, answers, strict=True):
        for text in texts:
            one = read(ACTOR_PAUSE, text, family.keys.actor_pauses)
            if one is not None and (one.is_open or (one.calls is None and not 0 < one.until <= now_ms())):
                found.setdefault(one.field, one)
    return [found[field] for field in sorted(found)]


PAUSE: Final = msgspec.json.Decoder(QueuePause | int)


def pause_of(text: bytes | None, key: str) -> QueuePause | None:
    """Return a pause; one that cannot be read has neither times nor names, and pauses nevertheless."""
    found = None if text is None else read(PAUSE, text, key)
    if isinstance(found, QueuePause):
        return msgspec.structs.replace(found, until=found.until or None)
    return None if text is None else QueuePause()


def _oldest_age_ms(bodies: list[bytes | None]) -> int | None:
    since = [moment for body in bodies if body is not None and (moment := _since(body)) is not None]
    return max(now_ms() - min(since), 0) if since else None


def _since(body: bytes) -> int | None:
    try:
        message: Any = codec.decode(body, message_id=codec.ANY_ID, lane="")
    except codec.UnreadableMessage:  # a consumer moves it to the quarantine
        return None
    return int(message.options.get("due_at") or message.options.get("enqueued_at") or message.message_timestamp)


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
    for at_lane, lane in enumerate(ALL_LANES):
        score, behind, scheduled, *lists = answers[at_lane * width : (at_lane + 1) * width]
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
