"""Server-side operations of one queue family that producers, consumers and lease keepers use.

Each is one Lua script (``switchyard/broker/lua/queue``) and atomic. Repeated after a lost answer, a script changes
nothing more and answers the same. Bodies are opaque. Only the server's clock counts. A message is leased to an *owner*
(one consumer of one lane in one process) under a *token*, a number that only grows: an owner with an older token has
lost the message and changes nothing. Operators' acts are in :mod:`switchyard.broker.queue.administration`.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final, Literal, NamedTuple

import msgspec

from switchyard.broker.errors import BrokerRefused, BrokerUnsafe, QueueFull
from switchyard.broker.keys import ALL_LANES, LANES, Lane, QueueKeys
from switchyard.broker.redis.calls import BUDGET_S, RedisCalls, Word
from switchyard.broker.redis.own_keys import note, number, read, utf8
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import ActorPause

HIGH, NORMAL, LOW = 1, 2, 3
# Lua's stack takes about 8,000 values; a call of so many messages takes the server well under 10 ms.
AT_ONCE: Final = 500


class Entry(NamedTuple):
    """A message to enqueue: its id, its body, and its unique key, with what :func:`policy_key` puts before it."""

    id: str
    body: bytes
    unique_key: str = ""


class HistoryRow(NamedTuple):
    """Row of an ended attempt for the history, written in one step with the move of its message.

    Args:
        packed: MessagePack array of one row, see :mod:`switchyard.broker.stores.history_streams`; empty for none.
        most_bytes: Budget of the stream.
    """

    packed: bytes = b""
    most_bytes: int = 0


NO_ROW: Final = HistoryRow()


class CancelRecord(NamedTuple):
    """Record of a cancelled job, its row for the history as well, written in one step with its cancellation.

    As in :mod:`switchyard.broker.stores.history_streams`, empty for none; the numbers are limits of the family.
    """

    record: bytes = b""
    ended_ms: int = 0
    records_bytes: int = 0
    history_bytes: int = 0


NO_RECORD: Final = CancelRecord()


class Lease(NamedTuple):
    """A message that an owner holds: its id and the fencing token, both as the server wrote them."""

    owner: str
    id: bytes
    token: bytes


class Grant(NamedTuple):
    """A message that was fetched.

    Args:
        crashes: Times it terminated its worker.
        cancel_requested: Its job was asked to stop while a worker held it.
        cause: What ended its last worker, or ``alone`` after a move since; it starts with ``limit`` when the worker was
            killed for this message's hard limit.
        body: ``None`` when the lane held an id without a body.
        lapses: ``None``, or of a lapse suspect the counted lapses, each ``<ms since the epoch>@<host>``.
    """

    lease: Lease
    crashes: int
    cancel_requested: bool
    cause: str
    body: bytes | None
    lapses: tuple[str, ...] | None = None


class MovingMessage(msgspec.Struct, frozen=True):
    """A waiting message that was leased in order to move it to another family.

    ``body`` is ``None`` for one that is cancelled or has none; ``crashes`` is the note as the server wrote it.
    """

    lease: Lease
    body: bytes | None
    unique_key: bytes
    crashes: bytes
    cancel_requested: bool


class Fetched(msgspec.Struct, frozen=True):
    """Answer to a fetch.

    Args:
        state: ``ok``; ``paused``; ``over`` when a pause of an actor has ended, and what it had set aside is to be made
            due; or ``gone`` when the owner has no lease and must go on under another name.
        stale: Those of the acknowledged leases that were lost.
        next_due_ms: Milliseconds until the next scheduled message is due; ``None`` when none is.
        left: More messages wait.
    """

    state: str
    grants: list[Grant]
    stale: list[Lease]
    next_due_ms: int | None
    left: bool


class Suspect(msgspec.Struct, frozen=True):
    """A message that ran while its worker ended. ``lease`` and ``body`` are set when the heir got it."""

    id: str
    crashes: int
    lease: Lease | None
    body: bytes | None


class Reclaimed(msgspec.Struct, frozen=True):
    """Result of reclaiming a dead owner's messages: count of those at the head of their lane again, and suspects."""

    returned: int
    suspects: list[Suspect]


def fetched(owner: str, answer: list[object], acked: Sequence[Lease] = ()) -> Fetched:
    state, stale, next_due_ms, left = answer[:4]
    grants = [
        _granted(Lease(owner, id_, token), crashes, body)
        for id_, token, crashes, body in zip(*[iter(answer[4:])] * 4, strict=True)
    ]
    return Fetched(
        state=str(state, "ascii"),  # type: ignore[call-overload]
        grants=grants,
        stale=[acked[position - 1] for position in stale],  # type: ignore[attr-defined]
        next_due_ms=next_due_ms if isinstance(next_due_ms, int) and next_due_ms >= 0 else None,
        left=left == 1,
    )


def _granted(lease: Lease, noted: bytes, body: bytes | None) -> Grant:
    """Parse what is noted of a message: crashes, lapses, whether cancellation was requested, and cause."""
    if noted == b"0":
        return Grant(lease, 0, False, "", body)
    words, _, cause = utf8(noted).partition(": ")
    count, *more = words.split(" ")
    lapses = [word.partition("=")[2] for word in more if word.startswith("suspect=")]
    counted = tuple(lapses[0].split(",")) if lapses and lapses[0] != "+" else ()
    return Grant(lease, int(count), "asked" in more, cause, body, counted if lapses else None)


def lease_args(leases: Sequence[Lease]) -> list[Word]:
    """Return ids and tokens, one after the other, as scripts take them."""
    return [arg for lease in leases for arg in (lease.id, lease.token)]


def in_chunks(leases: Sequence[Lease]) -> Iterator[Sequence[Lease]]:
    """Yield leases 250 at a time: two arguments each, 500 in one call."""
    for start in range(0, len(leases), AT_ONCE // 2):
        yield leases[start : start + AT_ONCE // 2]


def level_of(priority: object) -> int:
    """Return the level of a message's ``priority``: a lower number goes first, 0 is normal."""
    if not isinstance(priority, (int, float)) or priority == 0:
        return NORMAL
    return HIGH if priority < 0 else LOW


LEASE_MS: Final = 15_000
SWEEP_GAP_MS: Final = 10_000
CRASH_WINDOW_MS: Final = 72 * 3_600_000
PROMOTED_AT_ONCE: Final = 200
SOON_MS: Final = 1_000
SHOWN_SUSPECTS: Final = 50
UNSAFE: Final = "UNSAFE "

UNTIL_STARTED: Final = "\1"
FOR_A_WINDOW: Final = "\2"

Move = Literal["divert", "defer"]


def policy_key(key: str, options: Mapping[str, Any]) -> str:
    """Return a message's unique key with the policy of its actor's options before it, as ``enqueue.lua`` reads it."""
    if (window_ms := options.get("unique_for")) is not None:
        return f"{FOR_A_WINDOW}{window_ms}:{key}"
    again = options.get("on_duplicate", "keep")
    if again == "keep" and options.get("unique_until") != "started":
        return key
    return f"{UNTIL_STARTED}{again[0]}{key}"


class QueueOperations:
    """The operations of one queue family.

    Every method may raise what :meth:`switchyard.broker.redis.calls.RedisCalls.call` raises.
    """

    def __init__(self, calls: RedisCalls, keys: QueueKeys) -> None:
        self.calls = calls
        self.keys = keys
        k = keys
        self._work_keys = [k.leases, k.running]
        others = [k.dead_letters, k.unique, k.notes, k.refused, k.yields, k.stand_ins, k.sends]
        self._enqueue_keys = {
            lane: [k.bodies, *k.waiting(lane), k.due(lane), k.wakeup(lane), *k.done, *others] for lane in LANES
        }

    def enqueue(
        self,
        entries: Iterable[Entry],
        *,
        lane: Lane = "live",
        delay_ms: int = 0,
        level: int = NORMAL,
        limit: int = 0,
        budget_s: float = BUDGET_S,
    ) -> list[str]:
        """Put messages into a lane; an id that is known, waiting or finished, is not put there again.

        Args:
            entries: Taken 500 at a time; the next ones are made while the server works on the last. A tuple of no more
                is sent in one call, without a stream's cost.
            limit: Messages the lane may hold, waiting or scheduled; 0 for any number.

        Returns:
            For each entry the id that stands for it: its own, or that of the holder of its unique key.

        Raises:
            BrokerUnsafe: the server would delete messages, as a watch of its settings found.
            QueueFull: no room for the first 500 of them; or, with more, for all of a later 500. Earlier ones are there.
        """
        keys = self._enqueue_keys[lane]
        waiting = iter(entries)
        chunks: deque[list[Entry]] = deque()

        def batches() -> Iterator[tuple[list[str], list[Word]]]:
            while chunk := list(islice(waiting, AT_ONCE)):
                chunks.append(chunk)
                yield [*keys, *self._windows(chunk)], _enqueue_args(chunk, delay_ms, level, limit)

        standing: list[str] = []
        try:
            if isinstance(entries, tuple) and 0 < len(entries) <= AT_ONCE:
                answers = iter([self.calls.call(script("enqueue"), *next(batches()), budget_s=budget_s)])
            else:
                answers = self.calls.stream(script("enqueue"), batches(), budget_s=budget_s)
            for answer in answers:
                standing += self._standing(chunks.popleft(), answer, lane, limit)
        except BrokerRefused as error:
            if error.cause.startswith(UNSAFE):
                raise BrokerUnsafe("enqueue", error.cause.removeprefix(UNSAFE)) from error
            raise
        return standing

    def _windows(self, entries: Iterable[Entry]) -> list[str]:
        """Return the keys of the entries whose unique key has a window, in their order."""
        keys = (entry.unique_key for entry in entries)
        return [self.keys.unique_window(key.partition(":")[2]) for key in keys if key.startswith(FOR_A_WINDOW)]

    def _standing(self, entries: Sequence[Entry], answer: list[Any], lane: Lane, limit: int) -> list[str]:
        """Return for each message that was put into a lane the id that stands for it."""
        if len(answer) == 2 and isinstance(answer[1], int):
            raise QueueFull(self.keys.lane_name(lane), answer[1], limit)
        return [str(found, "ascii") for found in answer] if answer else [entry.id for entry in entries]

    def join(self, owner: str, *, lease_ms: int = LEASE_MS, work: str = "", budget_s: float = BUDGET_S) -> None:
        """Create the lease of a new owner, whose name must be unique for ever and end with ``/live`` or ``/retry``."""
        self.calls.call(script("join"), self._work_keys, [owner, lease_ms, work], budget_s=budget_s)

    def report(self, works: Mapping[str, str], *, budget_s: float = BUDGET_S) -> None:
        """Record what owners run (owner -> its text, see ``report.lua``), those without a lease left out."""
        self.calls.call(script("report"), self._work_keys, [*chain(*works.items())], budget_s=budget_s)

    def fetch_call(
        self, owner: str, count: int, *, request: int, acked: Sequence[Lease] = ()
    ) -> tuple[list[str], list[Word]]:
        """Return keys and arguments of a fetch, for a caller that sends the command itself."""
        args: list[Word] = [owner, count, request, PROMOTED_AT_ONCE]
        for lease in acked:
            args += (lease.id, lease.token)
        k, lane = self.keys, lane_of(owner)
        lists = [k.bodies, *k.waiting(lane), k.due(lane), k.wakeup(lane), k.leases, k.hold(owner), k.token, k.paused]
        return [*lists, *k.done, k.notes, k.unique, k.actor_pauses, k.limits, k.fair(lane)], args

    def fetch(self, owner: str, count: int, *, request: int, acked: Sequence[Lease] = ()) -> Fetched:
        """Lease up to ``count`` messages (at most 500) of the owner's lane, acknowledging others in the same step.

        ``request`` is greater than any before of this owner's; repeated with it, a fetch gets the same messages.
        """
        keys, args = self.fetch_call(owner, count, request=request, acked=acked)
        return fetched(owner, self.calls.call(script("fetch"), keys, args), acked)

    def ack(self, owner: str, leases: Sequence[Lease], *, budget_s: float = BUDGET_S) -> list[Lease]:
        """Acknowledge finished messages; return those whose token is stale, which stay as they are."""
        keys = [self.keys.hold(owner), self.keys.bodies, *self.keys.done, self.keys.notes, self.keys.unique]
        stale: list[Lease] = []
        for chunk in in_chunks(leases):
            answer = self.calls.call(script("ack"), keys, lease_args(chunk), budget_s=budget_s)
            stale += [chunk[position - 1] for position in answer]
        return stale

    def move(
        self,
        lease: Lease,
        *,
        move: Move,
        lane: Lane,
        body: bytes,
        delay_ms: int,
        level: int = NORMAL,
        row: HistoryRow = NO_ROW,
    ) -> bool:
        """Put a leased message, with a new body, into a lane; ``False`` when its token is stale."""
        k = self.keys
        keys = [k.bodies, k.hold(lease.owner), *k.waiting(lane), k.due(lane), k.wakeup(lane), k.notes, *k.done]
        args: list[Word] = [lease.id, lease.token, move, body, delay_ms, level, *row]
        return bool(self.calls.call(script("move"), [*keys, k.ended, k.history], args))

    def isolate(self, lease: Lease, *, budget_s: float = BUDGET_S) -> bool:
        """Put a leased message into the lane whose messages run alone; ``False`` when its token is stale."""
        k = self.keys
        keys = [k.hold(lease.owner), *k.waiting("alone"), k.wakeup("alone"), k.notes, *k.done, k.bodies]
        return bool(self.calls.call(script("isolate"), keys, [lease.id, lease.token], budget_s=budget_s))

    def dead_letter(self, lease: Lease, entry: bytes, row: HistoryRow = NO_ROW) -> bool:
        """Move a leased message, described by ``entry`` (JSON), to the dead list; ``False`` when its token is stale."""
        k = self.keys
        keys = [k.bodies, k.hold(lease.owner), k.dead, k.dead_letters, k.notes, k.unique, *k.done]
        args: list[Word] = [lease.id, lease.token, entry, *row]
        return bool(self.calls.call(script("dead_letter"), [*keys, k.ended, k.history], args))

    def release(self, owner: str, leases: Sequence[Lease], *, side: Literal["head", "tail"] = "head") -> list[Lease]:
        """Release messages unstarted, without counting an attempt or a crash; return those whose token is stale.

        At the head they are the next ones, in the order given.
        """
        k, lane = self.keys, lane_of(owner)
        keys = [k.hold(owner), *k.waiting(lane), k.wakeup(lane), k.notes, *k.done, k.bodies]
        stale: list[Lease] = []
        chunks = list(in_chunks(leases))
        for chunk in reversed(chunks) if side == "head" else chunks:
            answer = self.calls.call(script("release"), keys, [side, *lease_args(chunk)])
            stale += [chunk[position - 1] for position in answer]
        return stale

    def schedule(self, lease: Lease, *, body: bytes, due_at_ms: int) -> int | None:
        """Schedule a leased message in its lane; return its delay in ms, 0 if due and still held, ``None`` if stale."""
        k, lane = self.keys, lane_of(lease.owner)
        keys = [k.bodies, k.hold(lease.owner), k.due(lane), k.wakeup(lane), k.notes, *k.done]
        delay_ms = self.calls.call(script("schedule"), keys, [lease.id, lease.token, body, due_at_ms])
        return None if delay_ms < 0 else int(delay_ms)

    def quarantine(self, lease: Lease, entry: bytes, *, whole: bytes | None = None, kept_id: str = "") -> bool:
        """Move a message to the quarantine as ``entry`` (JSON), with its ``whole`` body; ``False`` on a stale token."""
        k = self.keys
        keys = [k.hold(lease.owner), k.bodies, k.quarantine, *k.done, k.notes, k.unique, k.quarantined_bodies]
        return bool(self.calls.call(script("quarantine"), keys, [lease.id, lease.token, entry, whole or b"", kept_id]))

    def renew(self, owners: Sequence[str], *, lease_ms: int = LEASE_MS, budget_s: float = BUDGET_S) -> list[str]:
        """Renew leases; return the owners that have lost theirs and must stop."""
        answer = self.calls.call(script("renew"), [self.keys.leases], [lease_ms, *owners], budget_s=budget_s)
        return [str(owner, "utf-8") for owner in answer]

    def lapsed(self, *, budget_s: float = BUDGET_S) -> list[str]:
        """Return owners whose lease expired; none after a gap without sweeps, when every lease starts anew."""
        keys = [self.keys.leases, self.keys.swept, self.keys.notes, self.keys.actor_pauses]
        answer = self.calls.call(script("lapsed"), keys, [LEASE_MS, SWEEP_GAP_MS], budget_s=budget_s)
        return [owner for owner in self._known(answer) if owner.endswith(LANE_ENDS)]

    def backlog_call(self) -> tuple[list[str], list[Word]]:
        """Return keys and arguments of a count of what waits: live, retry, isolated (also due in 1 s), suspects."""
        k = self.keys
        waiting = [key for lane in ALL_LANES for key in k.waiting(lane)]
        return [*waiting, k.due("alone"), k.paused, k.notes, k.running], [SOON_MS, SHOWN_SUSPECTS]

    def reclaim(
        self,
        owner: str,
        *,
        only_lapsed: bool = False,
        finished: Sequence[Lease] = (),
        running: Sequence[str] = (),
        cause: str = "",
        heir: str = "",
        budget_s: float = BUDGET_S,
    ) -> Reclaimed | None:
        """Reclaim an owner's messages: to the head of their lane, except those that it finished or ran.

        Args:
            only_lapsed: Do nothing unless its lease expired. What it ran by its record becomes a lapse suspect.
            finished: Messages it had finished and not acknowledged. Twice their number and that of
                ``running`` are at most 500 together.
            running: Ids it was running: their crash is counted.
            cause: Cause of its end, reported with the next fetch. One that starts with ``limit`` counts no crash.
            heir: An owner that gets ``running`` under new tokens. Has it no lease, they go back with the rest.

        Returns:
            ``None`` when the owner has no lease to take, and the heir nothing of it.
        """
        k, lane = self.keys, lane_of(owner)
        keys = [k.leases, k.hold(owner), k.bodies, *k.waiting(lane), k.wakeup(lane), *k.done, k.notes, k.unique]
        keys += [k.hold(heir or owner), k.token, k.running]
        mode = "lapsed" if only_lapsed else "now"
        args: list[Word] = [owner, mode, heir, CRASH_WINDOW_MS, cause, len(finished), *lease_args(finished), *running]
        answer = self.calls.call(script("reclaim"), keys, args, budget_s=budget_s)
        if answer[0] < 0 and len(answer) == 2:
            return None
        suspects = [
            Suspect(str(id_, "ascii", "replace"), int(count), Lease(heir, id_, token) if token else None, body or None)
            for id_, count, token, body in zip(*[iter(answer[2:])] * 4, strict=True)
        ]
        returned = max(answer[0], 0)
        while answer[1]:
            again: list[Word] = [owner, mode, heir, CRASH_WINDOW_MS, "", 0]
            answer = self.calls.call(script("reclaim"), keys, again, budget_s=budget_s)
            returned += max(answer[0], 0)
        return Reclaimed(returned, suspects)

    def cancel_requested(self, ids: Sequence[str], *, budget_s: float = BUDGET_S) -> set[str]:
        if not ids:
            return set()
        answer = self.calls.command("HMGET", self.keys.notes, *(f"asked:{id_}" for id_ in ids), budget_s=budget_s)
        return {id_ for id_, found in zip(ids, answer, strict=True) if found is not None}

    def read_acts(self, ids: Sequence[str]) -> tuple[set[str], dict[str, int]]:
        """Return which held messages were asked to stop, and the paused actors; one round trip.

        Of each actor the token before whose pause a message was leased if its own is not greater.
        """
        reads = [("HMGET", self.keys.notes, *(f"asked:{id_}" for id_ in ids)), ("HVALS", self.keys.actor_pauses)]
        noted, pauses = self.calls.look(reads)
        paused: dict[str, int] = {}
        for text in pauses:
            if (pause := read(ACTOR_PAUSE, text, self.keys.actor_pauses)) is not None:
                paused[pause.actor] = max(pause.token, paused.get(pause.actor, 0))
        return {id_ for id_, found in zip(ids, noted, strict=True) if found is not None}, paused

    def notify(self, lane: Lane) -> None:
        self.calls.call(script("notify"), [self.keys.wakeup(lane)], [])

    def owners(self) -> list[str]:
        return self._known(self.calls.command("ZRANGE", self.keys.leases, 0, -1))

    def _known(self, found: Sequence[bytes]) -> list[str]:
        """Return the owners among some members; remove those that no release names so: they would be found for ever."""
        odd = [member for member in found if not OWNER.fullmatch(member) and member != b"rearmed"]
        if odd:
            note(self.keys.leases, f"{odd[0]!r} is not an owner")
            self.calls.command("ZREM", self.keys.leases, *odd)
        return [str(member, "ascii") for member in found if OWNER.fullmatch(member)]

    def held(self, owner: str) -> list[Lease]:
        """Return what an owner holds, oldest first."""
        hold = self.keys.hold(owner)
        [answer] = self.calls.look([("HGETALL", hold)])
        return [Lease(owner, id_, b"%d" % token) for token, id_ in leases_in(answer, hold)]


ACTOR_PAUSE: Final = msgspec.json.Decoder(ActorPause)
# Those of a newer release may name other lanes.
OWNER: Final = re.compile(rb"[ -~]+/[a-z]+")
LANE_ENDS: Final = tuple(f"/{lane}" for lane in ALL_LANES)


def owners_of(members: Sequence[bytes], key: str) -> list[str]:
    """Return the owners among the members of leases; others, and those of unknown lanes, are left out."""
    owners = [utf8(member) for member in members]
    known = [owner for owner in owners if owner.endswith(LANE_ENDS) and owner.isascii()]
    if len(known) < len(owners):
        note(key, f"{len(owners) - len(known)} members are not owners of a lane")
    return known


def leases_in(hold: Sequence[bytes], key: str) -> list[tuple[int, bytes]]:
    """Return tokens and ids in the answer to ``HGETALL`` of a hold, oldest first."""
    pairs = [(number(token, key), id_) for id_, token in zip(hold[::2], hold[1::2], strict=True) if id_ != b"#"]
    return sorted(pair for pair in pairs if pair[0])


def lane_of(owner: str) -> Lane:
    """Return the lane that an owner consumes, read from its name; ``ValueError`` when it says none."""
    for lane in ALL_LANES:
        if owner.endswith(f"/{lane}"):
            return lane
    raise ValueError(f"owner {owner!r} names no lane; its name must end with /live, /retry or /alone")


def _enqueue_args(entries: Sequence[Entry], delay_ms: int, level: int, limit: int) -> list[Word]:
    keyed = any(entry.unique_key for entry in entries)
    args: list[Word] = [limit, delay_ms, level, "1" if keyed else "0"]
    for entry in entries:
        args += entry if keyed else entry[:2]
    return args
