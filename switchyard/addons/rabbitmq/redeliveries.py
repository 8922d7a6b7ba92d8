"""Notes beside a RabbitMQ server about messages that it delivers again: how their last delivery ended."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from switchyard.addons.rabbitmq.outgoing import NO_NUMBER, Publication, RabbitMessage
from switchyard.addons.rabbitmq.unique_claims import RabbitKeys
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls

logger = logging.getLogger("switchyard.broker")

KEPT_MS: Final = 72 * 3_600_000
KEPT_S: Final = KEPT_MS // 1000
NAMED: Final = 5
# A message that was delivered before starts this much later: the supervisor of its last worker notes how that ended.
REDELIVERED_S: Final = 0.25
# Cause of a lapse suspect that crashed no worker, as the scripts of Redis write it.
ALONE: Final = "alone"

_LAPSE = r"\d{1,15}@[^\s,]+"
_NOTE = re.compile(rf"(\d{{1,15}}) (-|{_LAPSE}) (\+|{_LAPSE}(?:,{_LAPSE})*)")


@dataclass(frozen=True, slots=True)
class LapseRecord:
    """Note of a lapse suspect, last changed at ``at_ms``.

    Args:
        alone: ``<ms>@<host>`` where it runs with nothing beside it, as far as is known; else empty.
        lapses: ``<ms>@<host>`` of each end of a pool while it ran so.
    """

    at_ms: int
    alone: str = ""
    lapses: tuple[str, ...] = ()

    def after(self, *, lapsed: bool, now_ms: int) -> LapseRecord:
        """Return the note of the message's next delivery.

        ``lapsed``: the last one ended without a word, so that its worker ended with its supervisor, or was cut off.
        """
        lapses = tuple(lapse for lapse in self.lapses if now_ms - int(lapse.partition("@")[0]) <= KEPT_MS)
        if lapsed and self.alone:
            lapses = (*lapses, f"{now_ms}@{self.alone.partition('@')[2]}")
        if not lapsed and not self.alone and lapses == self.lapses:
            return self
        return replace(self, at_ms=now_ms, alone="", lapses=lapses)

    def encode(self) -> str:
        return f"{self.at_ms} {self.alone or '-'} {','.join(self.lapses) or '+'}"


def decode(stored: bytes | None) -> LapseRecord | None:
    found = _NOTE.fullmatch(str(stored or b"", "utf-8", "replace"))
    if found is None:
        return None
    at_ms, alone, lapses = found.groups()
    return LapseRecord(int(at_ms), "" if alone == "-" else alone, () if lapses == "+" else tuple(lapses.split(",")))


class Redeliveries:
    """Notes of messages that a worker held when it, or its connection, ended. They are kept for 72 hours.

    A server that gives a message to the next worker knows neither why the last one ended, nor that it had finished,
    nor whether the message ran. Whoever outlives a delivery that ends notes it: the worker that gives the message back
    or loses its connection, and the supervisor of one that crashed. Without a note supervisor and worker ended
    together, and the message may have been the cause: it is a lapse suspect from then on.
    """

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls, self._keys, self._own_keys = calls, keys, RabbitKeys(keys.prefix)
        self._host = socket.gethostname()

    def note_crash(self, message_id: str, cause: str, *, counts: bool = True) -> None:
        key = self._own_keys.redelivered(message_id)
        self._calls.pipeline(
            [("HINCRBY", key, "crashes", int(counts)), ("HSET", key, "cause", cause), ("EXPIRE", key, KEPT_S)]
        )

    def note_ends(self, ended: Iterable[Publication]) -> None:
        """Note publications that were worked off, and are perhaps not acknowledged.

        Those without a number are left out: another one of the same id may follow.
        """
        commands: list[Sequence[Any]] = []
        for message_id, number in ended:
            if number == NO_NUMBER:
                continue
            key = self._own_keys.redelivered(message_id)
            commands += [("HSET", key, b"ended:" + number, 1), ("EXPIRE", key, KEPT_S)]
        if commands:
            self._calls.pipeline(commands)

    def note_ends_or_log(self, ended: Sequence[Publication]) -> None:
        """Note them; where the server does not answer, the messages may run again."""
        try:
            self.note_ends(ended)
        except BrokerError as error:
            ids = ", ".join(message_id for message_id, _ in ended[:NAMED])
            logger.warning("%d jobs have ended and may run again, it was not noted: %s: %s", len(ended), error, ids)

    def note_returns(self, marks: Sequence[int]) -> None:
        """Note publications, by their marks, that go back to the server and have ended no pool."""
        if not marks:
            return
        now, key = now_ms(), self._own_keys.returned()
        scores: list[int] = [word for mark in marks for word in (now, mark)]
        old = "ZREMRANGEBYSCORE", key, "-inf", now - KEPT_MS
        self._calls.pipeline([("ZADD", key, *scores), old, ("EXPIRE", key, KEPT_S)])

    def note_returns_or_log(self, marks: Sequence[int]) -> None:
        """Note them; where the server does not answer, the messages may run alone once."""
        try:
            self.note_returns(marks)
        except BrokerError as error:
            logger.warning("%d messages have not run and may run alone, it was not noted: %s", len(marks), error)

    def forget_return_or_log(self, mark: int) -> None:
        """Remove such a note; where the server does not answer, the next end of the message's pool is not counted."""
        try:
            self._calls.command("ZREM", self._own_keys.returned(), mark)
        except BrokerError as error:
            logger.warning("publication %d starts, and an end of its pool will not be counted: %s", mark, error)

    def note_alone(self, queue: str, message_id: str, lapses: tuple[str, ...]) -> None:
        """Note that a lapse suspect starts with nothing beside it. A failure is logged: a lapse is not counted then."""
        now = now_ms()
        note = LapseRecord(now, f"{now}@{self._host}", lapses)
        try:
            self._calls.pipeline(self._suspect(queue, message_id, note))
        except BrokerError as error:
            logger.warning("job %s runs alone, and an end of its pool will not be counted: %s", message_id, error)

    def clear(self, queue: str, message_id: str) -> None:
        """Note that a lapse suspect has ended, well or not, which clears it."""
        try:
            self._calls.command("HDEL", self._keys.queue(queue).suspects, message_id)
        except BrokerError as error:
            logger.warning("job %s ended and remains a suspect for 72 h at most: %s", message_id, error)

    def read(self, due: Sequence[tuple[RabbitMessage, bool]]) -> list[bool]:
        """Give messages their crashes, cause and lapses; return whether each had ended in its last delivery.

        Forgets the notes that count for one delivery: causes, returns, lone runs. A message that was delivered before
        (the second of a pair), and whose last delivery ended without a note, is a lapse suspect; one that ran alone
        then has this lapse counted.
        """
        reads: list[Sequence[Any]] = []
        for message, _ in due:
            reads.append(("HGETALL", self._own_keys.redelivered(message.message_id)))
            reads.append(("ZSCORE", self._own_keys.returned(), _mark_of(message)))
            reads.append(("HGET", message.family.keys.suspects, message.message_id))
        answers = iter(self._calls.pipeline(reads))
        now, ended, changes = now_ms(), list[bool](), list[Sequence[Any]]()
        for message, again in due:
            notes, returned, stored = next(answers), next(answers), next(answers)
            fields = dict(zip(notes[::2], notes[1::2], strict=True))
            cause = str(fields.get(b"cause", b""), "utf-8", "replace")
            ended.append(b"ended:" + message.lease.token in fields)
            lapsed, before = again and not (ended[-1] or cause or returned is not None), decode(stored)
            note = (before or LapseRecord(now)).after(lapsed=lapsed, now_ms=now) if lapsed or before else None
            if note is not None and note != before:
                changes += self._suspect(message.family.keys.queue, message.message_id, note)
            if returned is not None:
                changes.append(("ZREM", self._own_keys.returned(), _mark_of(message)))
            if cause:
                changes.append(("HDEL", self._own_keys.redelivered(message.message_id), "cause"))
            message.crashes, message.lapses = int(fields.get(b"crashes", 0)), note.lapses if note is not None else None
            message.cause = cause or (ALONE if note is not None else "")
        self._calls.pipeline(changes)
        return ended

    def _suspect(self, queue: str, message_id: str, note: LapseRecord) -> list[Sequence[Any]]:
        key = self._keys.queue(queue).suspects
        return [("HSET", key, message_id, note.encode()), ("EXPIRE", key, KEPT_S)]

    def suspects(self, queue: str, *, budget_s: float | None = None) -> dict[str, LapseRecord]:
        """Return the lapse suspects of a queue; forget those without a change for 72 hours."""
        key, found = self._keys.queue(queue).suspects, dict[str, LapseRecord]()
        answer = self._calls.command("HGETALL", key, budget_s=budget_s)
        old = []
        for id_, stored in zip(answer[::2], answer[1::2], strict=True):
            note = decode(stored)
            if note is None or now_ms() - note.at_ms > KEPT_MS:
                old.append(id_)
            else:
                found[str(id_, "utf-8", "replace")] = note
        if old:
            self._calls.command("HDEL", key, *old, budget_s=budget_s)
        return found


class LaterDeliveries:
    """Messages whose notes are read before they start: those delivered before, and those to run alone.

    One thread uses it: that of the consumer.
    """

    def __init__(self, redeliveries: Redeliveries) -> None:
        self._redeliveries = redeliveries
        self._waiting: deque[tuple[float, RabbitMessage, bool]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, message: RabbitMessage, *, again: bool, wait: bool = True) -> None:
        """Add a message; ``again``: the server had delivered it before; ``wait``: its notes may not be written yet."""
        self._waiting.append((time.monotonic() + (REDELIVERED_S if wait else 0.0), message, again))

    def admit(self) -> list[tuple[RabbitMessage, bool]]:
        """Return the messages that are due, with their notes, and whether each had ended in its last delivery.

        After a ``BrokerError`` (notes not read) they are due again.
        """
        due: list[tuple[RabbitMessage, bool]] = []
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, message, again = self._waiting.popleft()
            due.append((message, again))
        if not due:
            return []
        try:
            ended = self._redeliveries.read(due)
        except BrokerError:
            for message, again in due:
                self.add(message, again=again)
            raise
        return [(message, has_ended) for (message, _), has_ended in zip(due, ended, strict=True)]

    def take(self) -> list[RabbitMessage]:
        taken = [message for _, message, _ in self._waiting]
        self._waiting.clear()
        return taken


# A message that waits for a thread for longer is noted. Shorter, and each of a busy worker would cost a round trip.
WAITED_S: Final = 1.0


class WaitingMessages:
    """Notes of the messages of a consumer that have waited for a thread for over a second.

    A message that is noted has not started: its note is removed before it does, which costs those that waited for so
    long one round trip, and no other message any. ``delivering`` is held while a message's delivery changes, or it
    starts.
    """

    def __init__(self, redeliveries: Redeliveries, delivering: threading.RLock) -> None:
        self._redeliveries, self._delivering = redeliveries, delivering
        self._noting = threading.Lock()
        self._noted: set[int] = set()

    def note(self, in_flight: Mapping[str, RabbitMessage], source: object) -> None:
        """Note those that have waited for long. For the consumer's thread."""
        with self._noting:  # until they are noted: one that starts meanwhile waits, and removes its note
            before_s = time.monotonic() - WAITED_S
            with self._delivering:
                held = [message for message in list(in_flight.values()) if message.source is source]
                waiting = [message for message in held if not message.runs_in and message.received_s < before_s]
                new = set(map(_mark_of, waiting)) - self._noted
                if self._noted:  # one that is about to remove its note is held as well
                    self._noted.intersection_update(map(_mark_of, held))
                self._noted |= new
            self._redeliveries.note_returns_or_log(list(new))

    def begin(self, message: RabbitMessage) -> None:
        """Remove the note of a message that starts, if it has one."""
        if self._noted and (mark := _mark_of(message)) in self._noted:
            with self._noting:
                if mark in self._noted:
                    self._noted.discard(mark)
                    self._redeliveries.forget_return_or_log(mark)

    def leave(self) -> None:
        """Leave the notes of a connection that ended: they are about the next deliveries of these messages."""
        with self._noting:
            self._noted.clear()


def start(message: Any, delivering: threading.RLock) -> None:
    """Note in a message that this thread runs it: it is no longer only prefetched."""
    with delivering:
        message.runs_in = threading.get_ident()
    message.source.waiting.begin(message)


def _mark_of(message: RabbitMessage) -> int:
    return Publication(message.message_id, message.lease.token).mark
