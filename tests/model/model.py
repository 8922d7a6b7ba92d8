"""Specification of a queue family in plain Python: no server, no keys, no scripts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import msgspec

from switchyard.broker.keys import ALL_LANES, Lane
from switchyard.broker.queue.operations import (
    CRASH_WINDOW_MS,
    LEASE_MS,
    NORMAL,
    SWEEP_GAP_MS,
    Entry,
    Fetched,
    Grant,
    Lease,
    MovingMessage,
    Reclaimed,
    Suspect,
    lane_of,
)
from tests.model.keyspace import ACTIVE, DEAD, FINISHED, NOWHERE, QUARANTINED, SCHEDULED, UNFINISHED, WAITING

MEMORY_MS = 600_000  # of finished ids: a turn of it
LEVELS = (1, 2, 3)
HOST, SLOTS = "host", 1  # of each owner; those of the isolated lane run alone


@dataclass(frozen=True)
class Crashes:
    """When a message took its worker down, since when that is noted, what happened last, and a suspect's lapses."""

    since_ms: int
    times: tuple[int, ...] = ()
    cause: str = ""
    lapses: tuple[tuple[int, str], ...] | None = None

    @property
    def count(self) -> int:
        return len(self.times)

    @property
    def told(self) -> tuple[str, ...] | None:
        """The lapses as a worker is told."""
        return None if self.lapses is None else tuple(f"{ms}@{host}" for ms, host in self.lapses)

    @classmethod
    def of_note(cls, note: str) -> Self:
        first, _, counted = note.partition("\n@")
        _, since_ms, cause = first.split(" ", 2)
        times, _, lapses = counted.partition(" ")
        told = [lapse.partition("@") for lapse in lapses.split(",") if lapse not in ("-", "+")]
        known = None if lapses == "-" else tuple((int(ms), host) for ms, _, host in told)
        return cls(int(since_ms), tuple(int(ms) for ms in times.split(",") if ms != "-"), cause, known)

    def __str__(self) -> str:
        times = ",".join(map(str, self.times)) or "-"
        lapses = "-" if self.told is None else ",".join(self.told) or "+"
        return f"{self.count} {self.since_ms} {self.cause}\n@{times} {lapses}"


@dataclass
class Message:
    """A message, from its enqueue until its id is forgotten.

    Args:
        spent: The last move that ended a lease of it, and its token: by it a repeated one is known.
        ended: What ended it, known in the same way.
    """

    id: str
    body: bytes | None
    key: str = ""
    place: str = WAITING
    lane: Lane = "live"
    level: int = NORMAL
    due_ms: int = 0
    owner: str = ""
    token: int = 0
    crashes: Crashes | None = None
    spent: str = ""
    ended: str = ""
    ended_ms: int = 0
    letter: bytes = b""
    cancelled: bool = False
    asked: bool = False

    @property
    def crash_count(self) -> int:
        return self.crashes.count if self.crashes else 0

    @property
    def lease(self) -> Lease:
        return Lease(self.owner, self.id.encode(), str(self.token).encode())


@dataclass(frozen=True)
class Full:
    """An enqueue that the limit refused, and how many messages the lane held."""

    depth: int


class Model:
    """Every operation of :class:`switchyard.broker.queue.operations.QueueOperations` by its name, with its answer."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.messages: dict[str, Message] = {}
        self.waiting: dict[tuple[Lane, int], list[str]] = defaultdict(list)
        self.leases: dict[str, int] = {}
        self.requests: dict[str, tuple[int, int, int]] = {}
        self.told_due_ms: dict[str, int | None] = {}  # by the owner's last fetch
        self.stand_ins: dict[str, str] = {}  # the message that stands for one that yielded to it, for an hour
        self.dead: list[str] = []
        self.quarantined: list[str] = []
        self.token = 0
        self.paused = False
        self.swept_ms: int | None = None

    # Places of messages.

    def place(self, message_id: str) -> str:
        return self.messages[message_id].place if message_id in self.messages else NOWHERE

    def held_by(self, owner: str) -> list[Message]:
        """Return what an owner holds, oldest lease first."""
        held = [m for m in self.messages.values() if m.place == ACTIVE and m.owner == owner]
        return sorted(held, key=lambda m: m.token)

    def valid(self, lease: Lease) -> bool:
        return self._active(lease.owner, lease) is not None

    def scheduled(self, lane: Lane) -> list[Message]:
        found = [m for m in self.messages.values() if m.place == SCHEDULED and m.lane == lane]
        return sorted(found, key=lambda m: (m.due_ms, m.id))

    def view(self) -> dict[str, object]:
        """Return the state that :meth:`tests.model.keyspace.Keyspace.view` must read."""
        every = self.messages.values()
        holds: dict[str, dict[str, int]] = defaultdict(dict)
        for message in every:
            if message.place == ACTIVE:
                holds[message.owner][message.id] = message.token
        return {
            "waiting": {place: ids for place, ids in self.waiting.items() if ids},
            "scheduled": {lane: {m.id: m.due_ms for m in self.scheduled(lane)} for lane in ALL_LANES},
            "holds": dict(holds),
            "leases": self.leases,
            "token": self.token,
            "paused": self.paused,
            "bodies": {m.id: m.body for m in every if m.place in UNFINISHED and m.body is not None},
            "dead": self.dead,
            "letters": {m.id: m.letter for m in every if m.place == DEAD},
            "quarantine": self.quarantined,
            "ended": {m.id for m in every if m.ended},
            "unique": {m.key: m.id for m in every if m.key},
            "levels": {m.id: str(m.level) for m in every if m.level != NORMAL},
            "crashes": {m.id: str(m.crashes) for m in every if m.crashes},
            "cancelled": {m.id for m in every if m.cancelled},
            "asked": {m.id for m in every if m.asked},
        }

    # The operations.

    def advance(self, ms: int) -> None:
        self.now_ms += ms
        self.messages = {
            id_: m
            for id_, m in self.messages.items()
            if not m.ended or (m.ended_ms // MEMORY_MS + 2) * MEMORY_MS > self.now_ms
        }

    def enqueue(self, entries: Sequence[Entry], lane: Lane, delay_ms: int, level: int, limit: int) -> list[str] | Full:
        standing: list[str] = []
        decided: dict[str, str] = {}
        new: list[Message] = []
        holders = {m.key: m.id for m in self.messages.values() if m.key}
        for entry in entries:
            if entry.id not in decided and entry.id not in self.messages:
                before = self.stand_ins.get(entry.id) if entry.unique_key else None
                decided[entry.id] = before or holders.get(entry.unique_key, entry.id)
                if decided[entry.id] == entry.id:
                    new.append(Message(entry.id, entry.body, entry.unique_key))
                    if entry.unique_key:
                        holders[entry.unique_key] = entry.id
                else:
                    self.stand_ins[entry.id] = decided[entry.id]
            standing.append(decided.get(entry.id, entry.id))
        depth = sum(m.lane == lane and m.place in (WAITING, SCHEDULED) for m in self.messages.values())
        if limit and new and depth + len(new) > limit:
            return Full(depth)
        for message in new:
            self._put(message, lane, delay_ms, level)
        return standing

    def stray(self, message_id: str, lane: Lane) -> None:
        """Push an id without a body into a lane, as an operator might by hand."""
        self._put(Message(message_id, None), lane, 0, NORMAL)

    def join(self, owner: str) -> None:
        self.leases[owner] = self.now_ms + LEASE_MS

    def fetch(self, owner: str, count: int, request: int, acked: Sequence[Lease]) -> Fetched:
        stale = self.ack(owner, acked)
        self.told_due_ms[owner] = None
        if owner not in self.leases:
            return Fetched("gone", [], stale, None, False)
        lane = lane_of(owner)
        number, first, end = self.requests.get(owner, (0, 0, 0))
        granted = [m for m in self.held_by(owner) if request == number and first <= m.token < end]
        if not granted:
            if self.paused:
                return Fetched("paused", [], stale, None, False)
            for message in self.scheduled(lane):
                if message.due_ms <= self.now_ms:
                    self._put(message, lane, 0, message.level)
            granted = self._take(owner, count)
            if granted:
                self.requests[owner] = (request, granted[0].token, self.token + 1)
        grants = [
            Grant(m.lease, m.crash_count, m.asked, m.crashes.cause, m.body, m.crashes.told)
            if m.crashes
            else Grant(m.lease, 0, m.asked, "", m.body)
            for m in granted
        ]
        left = any(self.waiting[lane, level] for level in LEVELS)
        ahead = self.scheduled(lane)
        self.told_due_ms[owner] = ahead[0].due_ms if ahead else None
        next_due_ms = max(ahead[0].due_ms - self.now_ms, 0) if ahead else None
        return Fetched("ok", grants, stale, next_due_ms, left)

    def ack(self, owner: str, leases: Sequence[Lease]) -> list[Lease]:
        stale = []
        for lease in leases:
            token = str(lease.token, "ascii")
            message = self._active(owner, lease)
            if message:
                self._end(message, token)
            elif not self._known(lease) or self._message(lease).ended != token:
                stale.append(lease)
        return stale

    def move(self, lease: Lease, move: str, lane: Lane, body: bytes, delay_ms: int, level: int) -> bool:
        message = self._active(lease.owner, lease)
        if not message:
            return self._repeated(lease, move)
        message.spent, message.body = f"{move} {message.token}", body
        if message.crashes:
            message.crashes = replace(message.crashes, cause="alone")
        self._put(message, lane, delay_ms, level)
        return True

    def isolate(self, lease: Lease) -> bool:
        message = self._active(lease.owner, lease)
        if not message:
            return self._repeated(lease, "isolate")
        message.spent = f"isolate {message.token}"
        self._put(message, "alone", 0, message.level)
        return True

    def take(self, owner: str, count: int, level: int) -> list[MovingMessage] | None:
        if owner not in self.leases:
            return None
        taken = [self.messages[id_] for id_ in self.waiting[lane_of(owner), level][:count]]
        for message in taken:
            self._leave_list(message)
            self._lease(message, owner)
        notes = [(m.key.encode(), str(m.crashes or "").encode(), m.asked) for m in taken]
        bodies = [None if m.cancelled else m.body for m in taken]
        return [MovingMessage(m.lease, body, *noted) for m, body, noted in zip(taken, bodies, notes, strict=True)]

    def place_taken(self, taken: Sequence[MovingMessage], lane: Lane, level: int) -> None:
        for one in taken:
            id_, key = str(one.lease.id, "ascii"), str(one.unique_key, "ascii")
            if id_ not in self.messages:
                holders = {m.key for m in self.messages.values()}
                message = Message(id_, one.body, "" if key in holders else key)
                if one.crashes:
                    message.crashes = Crashes.of_note(str(one.crashes, "ascii"))
                self._put(message, lane, 0, level)
            if self.messages[id_].place in UNFINISHED:
                self.messages[id_].asked |= one.cancel_requested

    def adopt(self, owner: str, ids: Sequence[str]) -> tuple[str, list[Lease]]:
        if owner not in self.leases or self.paused:
            return "paused" if owner in self.leases else "gone", []
        adopted = [m for m in map(self.messages.get, ids) if m and (m.place, m.lane) == (SCHEDULED, lane_of(owner))]
        for message in adopted:
            self._lease(message, owner)
        return "ok", [message.lease for message in adopted]

    def forget(self, owner: str, taken: Sequence[MovingMessage]) -> list[MovingMessage]:
        stay = []
        for one in taken:
            message = self._active(owner, one.lease)
            if message and message.asked and not one.cancel_requested:
                stay.append(msgspec.structs.replace(one, cancel_requested=True))
            elif message:
                del self.messages[message.id]
        return stay

    def dead_letter(self, lease: Lease, letter: bytes) -> bool:
        message = self._active(lease.owner, lease)
        if not message:
            return self._repeated(lease, "dead_letter")
        message.place, message.letter, message.spent = DEAD, letter, f"dead_letter {message.token}"
        message.key, message.crashes, message.asked, message.cancelled = "", None, False, False
        self.dead.append(message.id)
        return True

    def quarantine(self, lease: Lease, entry: bytes) -> bool:
        message = self._active(lease.owner, lease)
        if not message:
            return self._repeated(lease, "quarantine")
        self._end(message, f"quarantine {message.token}", QUARANTINED)
        self.quarantined.insert(0, str(entry, "ascii"))
        return True

    def release(self, owner: str, leases: Sequence[Lease], side: str) -> list[Lease]:
        others = []
        for lease in reversed(leases) if side == "head" else leases:
            message = self._active(owner, lease)
            if message:
                message.spent = f"release {message.token}"
                self._give_back(message, side)
            else:
                others.append(lease)
        return [lease for lease in others if not self._repeated(lease, "release")]

    def renew(self, owners: Sequence[str]) -> list[str]:
        for owner in owners:
            if owner in self.leases:
                self.leases[owner] = self.now_ms + LEASE_MS
        return [owner for owner in owners if owner not in self.leases]

    def lapsed(self) -> list[str]:
        before, self.swept_ms = self.now_ms if self.swept_ms is None else self.swept_ms, self.now_ms
        if not 0 <= self.now_ms - before <= SWEEP_GAP_MS:
            self.renew(list(self.leases))
            return []
        return sorted((o for o, ms in self.leases.items() if ms <= self.now_ms), key=lambda o: (self.leases[o], o))

    def reclaim(
        self, owner: str, only_lapsed: bool, finished: Sequence[Lease], running: Sequence[str], cause: str, heir: str
    ) -> Reclaimed | None:
        heir = heir if heir in self.leases else ""
        lease_ms = self.leases.get(owner)
        if lease_ms is not None and only_lapsed and lease_ms > self.now_ms:
            return None
        if lease_ms is not None:
            del self.leases[owner]
            self.ack(owner, finished)
        suspects = []
        if lease_ms is not None and only_lapsed:
            for message in self.held_by(owner)[:SLOTS]:  # a worker begins with the oldest
                self._suspect(message, owner)
                suspects.append(Suspect(message.id, message.crash_count, None, None))
        for id_ in running:
            message = self.messages.get(id_)
            if message is None or message.place != ACTIVE:
                continue
            if message.owner == owner:
                self._blame(message, cause)
                if heir:
                    self._lease(message, heir)
                    suspects.append(Suspect(id_, message.crash_count, message.lease, message.body))
                else:
                    suspects.append(Suspect(id_, message.crash_count, None, None))
            elif message.owner == heir:
                suspects.append(Suspect(id_, message.crash_count, message.lease, message.body))
        if lease_ms is None:
            return Reclaimed(0, suspects) if suspects else None
        back = self.held_by(owner)
        for message in reversed(back):
            self._give_back(message, "head")
        return Reclaimed(len(back), suspects)

    def requeue(self, letter_id: str, as_read: bytes, body: bytes, level: int, nonce: str) -> bool:
        message = self.messages.get(letter_id)
        word = f"requeue {nonce}"
        if message is None or message.place != DEAD or message.letter != as_read:
            return message is not None and word in (message.spent, message.ended)
        self.dead.remove(letter_id)
        message.body, message.spent, message.crashes = body, word, None
        self._put(message, "live", 0, level)
        return True

    def discard(self, letter_id: str, nonce: str) -> bool:
        message = self.messages.get(letter_id)
        word = f"discard {nonce}"
        if message is None or message.place != DEAD:
            return message is not None and word in (message.spent, message.ended)
        self.dead.remove(letter_id)
        self._end(message, word)
        return True

    def cancel(self, message_id: str) -> str:
        message = self.messages.get(message_id)
        if message and message.place == ACTIVE and message.body is not None:
            message.asked = True
            return "asked"
        if message and message.place == SCHEDULED:
            self._end(message, "cancel")
        elif message and message.place == WAITING and message.body is not None:
            message.cancelled, message.key = True, ""
        elif message is None or message.ended != "cancel":
            return "unknown"
        return "cancelled"

    def due_now(self, message_id: str, as_read: bytes, body: bytes) -> int:
        message = self.messages.get(message_id)
        if message is None or message.body is None or message.place not in UNFINISHED:
            return -1
        if message.place != SCHEDULED:
            return 0
        if message.due_ms > self.now_ms:
            if message.body != as_read:
                return -2
            message.body, message.due_ms = body, self.now_ms
        return 1

    def amend(self, message_id: str, as_read: bytes, body: bytes, due_ms: int | None) -> int:
        message = self.messages.get(message_id)
        if message is None or message.body is None or message.place not in UNFINISHED:
            return -1
        if message.body == body and as_read != body:
            return 1
        if message.place == ACTIVE:
            return 0
        if message.body != as_read:
            return -2
        if due_ms is not None and message.place != SCHEDULED:
            return -4
        message.body = body
        if due_ms is not None:
            message.due_ms = due_ms
        return 1

    def pause(self) -> bool:
        was, self.paused = self.paused, True
        return not was

    def resume(self) -> bool:
        was, self.paused = self.paused, False
        return was

    def flush(self) -> None:
        self.messages = {id_: m for id_, m in self.messages.items() if m.place not in UNFINISHED}
        for message in self.messages.values():
            if message.place == DEAD:
                message.spent, message.level = "", NORMAL
        self.waiting.clear()
        self.requests.clear()

    # Their parts.

    def _known(self, lease: Lease) -> bool:
        return str(lease.id, "ascii") in self.messages

    def _message(self, lease: Lease) -> Message:
        return self.messages[str(lease.id, "ascii")]

    def _active(self, owner: str, lease: Lease) -> Message | None:
        if not self._known(lease):
            return None
        message = self._message(lease)
        held = message.place == ACTIVE and message.owner == owner and message.token == int(lease.token)
        return message if held else None

    def _repeated(self, lease: Lease, move: str) -> bool:
        word = f"{move} {int(lease.token)}"
        return self._known(lease) and word in (self._message(lease).spent, self._message(lease).ended)

    def _put(self, message: Message, lane: Lane, delay_ms: int, level: int) -> None:
        self._leave_list(message)
        self.messages[message.id] = message
        message.lane, message.level, message.owner = lane, level, ""
        if delay_ms > 0:
            message.place, message.due_ms = SCHEDULED, self.now_ms + delay_ms
        else:
            message.place = WAITING
            self.waiting[lane, level].append(message.id)

    def _give_back(self, message: Message, side: str) -> None:
        ids = self.waiting[message.lane, message.level]
        ids.insert(0 if side == "head" else len(ids), message.id)
        message.place, message.owner = WAITING, ""

    def _take(self, owner: str, count: int) -> list[Message]:
        taken: list[Message] = []
        for level in LEVELS:
            ids = self.waiting[lane_of(owner), level]
            while ids and len(taken) < count:
                message = self.messages[ids[0]]
                if message.cancelled:
                    self._end(message, "cancel")
                else:
                    self._leave_list(message)
                    self._lease(message, owner)
                    taken.append(message)
        return taken

    def _lease(self, message: Message, owner: str) -> None:
        self.token += 1
        message.place, message.owner, message.token = ACTIVE, owner, self.token

    def _blame(self, message: Message, cause: str) -> None:
        crashes = message.crashes or Crashes(self.now_ms)
        times = tuple(ms for ms in crashes.times if self.now_ms - ms <= CRASH_WINDOW_MS)
        if not cause.startswith("limit"):
            times = (*times, self.now_ms)
        since_ms = times[0] if times else crashes.since_ms
        message.crashes = Crashes(since_ms, times, cause, crashes.lapses)

    def _suspect(self, message: Message, owner: str) -> None:
        crashes = message.crashes or Crashes(self.now_ms)
        lapses = tuple(lapse for lapse in crashes.lapses or () if self.now_ms - lapse[0] <= CRASH_WINDOW_MS)
        if crashes.lapses is not None and lane_of(owner) == "alone":
            lapses = (*lapses, (self.now_ms, HOST))
        since_ms = crashes.times[0] if crashes.times else crashes.since_ms
        message.crashes = Crashes(since_ms, crashes.times, crashes.cause or "alone", lapses)

    def _end(self, message: Message, word: str, place: str = FINISHED) -> None:
        self._leave_list(message)
        message.place, message.ended, message.ended_ms = place, word, self.now_ms
        message.key, message.level, message.crashes, message.owner = "", NORMAL, None, ""
        message.cancelled = message.asked = False

    def _leave_list(self, message: Message) -> None:
        ids = self.waiting[message.lane, message.level]
        if message.id in ids:
            ids.remove(message.id)
