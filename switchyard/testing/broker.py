"""Dramatiq's broker in the memory of a test's process: the checks and the encoding of the real one, and no server."""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast

from dramatiq.broker import Consumer as DramatiqConsumer
from dramatiq.broker import MessageProxy
from dramatiq.errors import QueueJoinTimeout
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable, QueueFull
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import FOR_A_WINDOW, UNTIL_STARTED, Entry, Lease, QueueOperations
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.scripts import Script
from switchyard.broker.shapes import LaneStats, shown_json
from switchyard.broker.stores.limit_counts import ACQUIRE, CHANGE, RELEASE
from switchyard.broker.topology import Yard, lane_of_name, whole_delay
from switchyard.broker.worker.acks import record_enqueued
from switchyard.broker.yard_broker import HookedBroker, undeclared
from switchyard.middleware.arguments import signature_of


class MemoryCalls(RedisCalls):
    """Counters and locks of :mod:`switchyard.broker.stores.limit_counts`, and the refusal of everything else.

    What is refused belongs to a real server: pages of the operations room, streams of events.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}
        self._locks: dict[str, tuple[Word, int]] = {}
        self._taken = 0

    def call(self, operation: Script, keys: Sequence[str], args: Sequence[Word] = (), **options: Any) -> Any:
        """Change a counter, or acquire or release a lock, as ``switchyard/broker/lua`` does.

        Raises:
            BrokerUnavailable: it is another operation.
        """
        if operation in (ACQUIRE, RELEASE):
            return self._lock(keys[0], args[0], None if operation is RELEASE else int(args[1]))
        if operation is not CHANGE:
            self._refuse(operation.name)
        amount, minimum, maximum, ttl_ms = (int(word) for word in args[:4])
        before = self._count(keys[0])
        value = (before or 0) + amount
        fits = minimum <= value <= maximum and not (before is not None and args[5] == "new")
        if len(keys) > 2:
            fits = fits and amount + sum(self._count(key) or 0 for key in keys[2:]) <= maximum
        if fits:
            self._counts[keys[0]] = value, now_ms() + ttl_ms
        return int(fits)

    def command(self, *words: Word, budget_s: float | None = None) -> Any:
        """Set an event of a barrier, or read whether it is set.

        Raises:
            BrokerUnavailable: it is another command.
        """
        match words:
            case ("EXISTS", str(key)):
                return int(self._count(key) is not None)
            case ("SET", str(key), int(value), "PX", int(ttl_ms)):
                self._counts[key] = value, now_ms() + ttl_ms
                return b"OK"
        return self._refuse(str(words[0]))

    def pipeline(self, commands: Sequence[Sequence[Word]], **options: Any) -> NoReturn:
        self._refuse(str(commands[0][0]) if commands else "a pipeline")

    def stream(self, *args: Any, **options: Any) -> NoReturn:
        self._refuse("a stream")

    def acquire(self, key: str | bytes | None = None) -> NoReturn:
        self._refuse("a connection")

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _lock(self, key: str, token: Word, lease_ms: int | None) -> int:
        holder, until_ms = self._locks.get(key, (token, 0))
        if holder != token and until_ms > now_ms():
            return 0
        if lease_ms is None:
            return int(self._locks.pop(key, None) is not None)
        if holder != token or until_ms == 0:
            self._taken += 1
        self._locks[key] = token, now_ms() + lease_ms
        return self._taken

    def _count(self, key: str) -> int | None:
        value, expires_ms = self._counts.get(key, (0, 0))
        return value if expires_ms > now_ms() else None

    def _refuse(self, operation: str) -> NoReturn:
        cause = "the broker of this test is in memory"
        remedy = "test what needs a server with a real one"
        raise BrokerUnavailable(operation, cause, outcome="refused", remedy=remedy)


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message in memory, encoded as it would be on the server.

    Args:
        level: Priority: 1 high, 2 normal, 3 low.
        ready_ms: Time from which it may start, ms since the epoch.
        order: Number of its enqueueing.
    """

    id: str
    lane: str
    body: bytes
    level: int
    ready_ms: int
    order: int

    @property
    def place(self) -> tuple[int, int, int]:
        """Place among the messages that are ready: by priority, then by time, then by number."""
        return self.level, self.ready_ms, self.order

    def message(self) -> Message[Any]:
        return codec.decode(self.body, message_id=self.id, lane=self.lane)


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that was sent for the first time, by a task or not; ``delay_ms`` is ``None`` without a delay."""

    message: Message[Any]
    by_task: bool
    delay_ms: int | None


OWNER = "test"


def _key_of(entry: Entry, lane: str) -> tuple[str, str]:
    """Return the queue and the unique key that a message is to hold, a key until its start with its mark."""
    key = entry.unique_key
    if key.startswith(UNTIL_STARTED):
        key = UNTIL_STARTED + key[2:]
    elif key.startswith(FOR_A_WINDOW):
        key = FOR_A_WINDOW + key.partition(":")[2]
    return lane_of_name(lane)[0], key


class MemoryBroker(HookedBroker):
    """Keeps messages in this process. :class:`switchyard.testing.running.Runner` runs them in the caller's thread.

    Attributes:
        waiting: Messages that wait or are scheduled, by id.
        held: Messages that run, by id.
        stopping: Ids of messages whose jobs were asked to stop while they ran.
        sent: Every message that was sent for the first time, in order.
        in_task: A task runs.
        moment_ms: Start of the message that runs: all that it defers is counted from there, so that messages which
            are due at the same time keep their order. ``None`` while none runs.
        on_enqueue: Called after a message was put into a lane.
        yard: Declares the queues that messages may be sent to; with ``None`` any.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(middleware=[], **options)
        self.on_enqueue: Callable[[], object] = lambda: None
        self.yard: Yard | None = None
        self._changed = threading.Condition(threading.RLock())
        self.clear()

    def clear(self) -> None:
        self.waiting: dict[str, StoredMessage] = {}
        self.held: dict[str, HeldMessage] = {}
        self.finished: set[str] = set()
        self.dead: set[str] = set()
        self.stopping: set[str] = set()
        self.unique: dict[tuple[str, str], str] = {}
        self.windows: dict[tuple[str, str], tuple[str, int]] = {}
        self.sent: list[SentMessage] = []
        self.turns: dict[str, tuple[str, int]] = {}
        self.in_task = False
        self.moment_ms: int | None = None
        self._count = 0

    def add_middleware(
        self, middleware: Middleware, *, before: type[Middleware] | None = None, after: type[Middleware] | None = None
    ) -> None:
        if middleware not in self.middleware:
            super().add_middleware(middleware, before=before, after=after)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue a message, with the checks of :meth:`switchyard.broker.redis_broker.RedisBroker.enqueue`.

        Raises:
            QueueNotFound: the queue was never declared. QueueFull: it is at its limit. TypeError: it is no message.
            UnknownQueue: an actor declared the queue and the yard does not, so that no pool serves it.
        """
        codec.require_message(message)
        if message.queue_name not in self.queues:
            raise undeclared(message.queue_name, self.queues)
        if self.yard is not None:
            self.yard.queue_of(message.queue_name)
        delay = delay and whole_delay(delay)
        held = self.held.get(message.message_id)
        self.emit_before("enqueue", message, delay)
        if held is not None and not held.moved:
            self._put(message, codec.encode(message, grown=True), delay)
            held.moved = True
            return self._noted(message, delay)
        if self.postpone is None or self.postpone((message,), delay):
            return self._put_new(message, delay)
        return message

    def enqueue_many(self, messages: Any, *, delay: int | None = None) -> list[Message[Any]]:
        return [self.enqueue(message, delay=delay) for message in messages]

    def put(
        self, messages: Sequence[Message[Any]], *, delay: int | None = None, budget_s: float = 0.0
    ) -> list[Message[Any]]:
        """Enqueue messages whose hooks before that have run."""
        return [self._put_new(message, delay) for message in messages]

    def _put_new(self, message: Message[Any], delay: int | None) -> Message[Any]:
        entry = codec.entry_of(message, self.actors)
        with self._changed:
            standing = self._standing(entry, message.queue_name)
            if standing is None:
                self.require_room(message.queue_name)
                self._hold_key(entry, message.queue_name)
                self._put(message, entry.body, delay)
                self.sent.append(SentMessage(self.waiting[entry.id].message(), self.in_task, delay))
            elif standing != entry.id:
                self._change(standing, entry, delay or 0)
        if standing not in (None, entry.id):
            self.emit_after("yield_to_holder", message)
            return message.copy(message_id=standing)
        return self._noted(message, delay)

    def _noted(self, message: Message[Any], delay: int | None) -> Message[Any]:
        self.emit_after("enqueue", message, delay)
        record_enqueued(self.barrier, 1, message.queue_name)
        self.on_enqueue()
        return message

    def now_ms(self) -> int:
        """Return the time that delays are counted from."""
        return now_ms() if self.moment_ms is None else self.moment_ms

    def knows(self, message_id: str) -> bool:
        """Whether a message waits, runs, ended or is dead."""
        return any(message_id in places for places in (self.waiting, self.held, self.finished, self.dead))

    def _standing(self, entry: Entry, lane: str) -> str | None:
        """Return the id that stands for a message which is not enqueued, or ``None``."""
        if self.knows(entry.id):
            return entry.id
        if not entry.unique_key:
            return None
        holder, until_ms = self.windows.get(_key_of(entry, lane), (None, 0))
        return self.unique.get(_key_of(entry, lane)) or (holder if until_ms > now_ms() else None)

    def _hold_key(self, entry: Entry, lane: str) -> None:
        if entry.unique_key.startswith(FOR_A_WINDOW):
            window_ms = int(entry.unique_key[1:].partition(":")[0])
            self.windows[_key_of(entry, lane)] = entry.id, now_ms() + window_ms
        elif entry.unique_key:
            self.unique[_key_of(entry, lane)] = entry.id

    def _change(self, holder: str, entry: Entry, delay_ms: int) -> None:
        """Apply the actor's ``on_duplicate`` to the message that holds a unique key, as ``enqueue.lua`` does."""
        again = entry.unique_key[1:2] if entry.unique_key.startswith(UNTIL_STARTED) else ""
        if again in ("r", "d") and (stored := self.waiting.get(holder)) is not None:
            later = again == "d" and stored.ready_ms > now_ms()
            ready_ms = max(stored.ready_ms, self.now_ms() + delay_ms) if later else stored.ready_ms
            changed = self.waiting[holder] = replace(stored, body=entry.body, ready_ms=ready_ms)
            self.sent = [
                replace(one, message=changed.message()) if one.message.message_id == holder else one
                for one in self.sent
            ]

    def require_room(self, lane: str) -> None:
        """Raise ``QueueFull`` for a queue at its limit."""
        limit = self.limits.of(lane)
        depth = sum(stored.lane == lane for stored in self.waiting.values()) if limit else 0
        if limit and depth >= limit:
            raise QueueFull(lane, depth, limit)

    def _put(self, message: Message[Any], body: bytes, delay: int | None) -> None:
        with self._changed:
            self._count += 1
            if not delay:
                self._join_sequence(message)
            ready_ms = self.now_ms() + (delay or 0)
            place = (message.message_id, message.queue_name, body, self.level(message), ready_ms, self._count)
            self.waiting[message.message_id] = StoredMessage(*place)
            self._changed.notify_all()

    # --- A worker's side ---

    def next_ready(self, lanes: Collection[str] | None = None) -> StoredMessage | None:
        """Return the message that starts next, or ``None`` while none is due."""
        now = now_ms()
        ready = [one for one in self.in_turn() if one.ready_ms <= now and (lanes is None or one.lane in lanes)]
        return min(ready, key=lambda stored: stored.place, default=None)

    def in_turn(self) -> list[StoredMessage]:
        """Return what waits, but for messages behind another one of their sequence."""
        first: dict[str, int] = {}
        for id_, (sequence, turn) in self.turns.items():
            if id_ in self.waiting or id_ in self.held:
                first[sequence] = min(turn, first.get(sequence, turn))
        found = list(self.waiting.values())
        return [
            one for one in found if one.id not in self.turns or first[self.turns[one.id][0]] == self.turns[one.id][1]
        ]

    def _join_sequence(self, message: Message[Any] | MessageProxy) -> None:
        """Note the turn of a message whose actor is ``ordered_by`` an argument; it keeps it through its retries."""
        actor = self.actors.get(message.actor_name)
        if actor is None or (argument := actor.options.get("ordered_by")) is None:
            return
        values = signature_of(actor.fn).bind_partial(*message.args, **message.kwargs)
        values.apply_defaults()
        sequence = f"{actor.actor_name} {shown_json(values.arguments.get(argument))}"
        self.turns.setdefault(message.message_id, (sequence, self._count))

    def hold(self, stored: StoredMessage) -> HeldMessage | None:
        """Take a message out of its lane, for the caller to run; ``None`` where it is scheduled by its ``eta``."""
        with self._changed:
            message = stored.message()
            if not message.options.keys() <= codec.VALIDATED:
                self.emit_before("receive_message", message)
            eta = message.options.pop("eta", None)
            if eta is not None and eta > now_ms():
                message.options.update(due_at=int(eta), deferred_by="eta")
                self._put(message, codec.encode(message, grown=True), int(eta) - self.now_ms())
                return None
            self.waiting.pop(stored.id, None)
            self._join_sequence(message)
            for key in [key for key, id_ in self.unique.items() if id_ == stored.id and key[1][0] == UNTIL_STARTED]:
                del self.unique[key]
            self._count += 1
            lease = Lease(OWNER, stored.id.encode(), str(self._count).encode())
            held = HeldMessage(message, lease, cast(QueueOperations, None))
            held.body, held.cancel_requested = stored.body, stored.id in self.stopping
            self.held[stored.id] = held
            return held

    def reclaim(self) -> None:
        """Put what is held and not moved back where it was: its worker is gone."""
        for held in list(self.held.values()):
            del self.held[held.message_id]
            if not held.moved:
                self._put(held.copy(), held.body, None)

    def finish(self, held: MessageProxy) -> None:
        """Forget a message that was run: after its acknowledgement, or because it is in another place."""
        if self.barrier is not None:
            self.barrier.flush()
        with self._changed:
            known = self.held.get(held.message_id)
            if known is held:
                del self.held[held.message_id]
            if not getattr(held, "moved", False):
                self.stopping.discard(held.message_id)
                self.turns.pop(held.message_id, None)
                self.finished.add(held.message_id)
                self.release_key(held.message_id)
            self._changed.notify_all()

    def release_key(self, message_id: str) -> None:
        self.unique = {key: id_ for key, id_ in self.unique.items() if id_ != message_id}

    def lane_stats(self, lane: str) -> LaneStats:
        now, found = now_ms(), [stored for stored in self.waiting.values() if stored.lane == lane]
        ready = [stored.ready_ms for stored in found if stored.ready_ms <= now]
        running = sum(held.queue_name == lane and not held.moved for held in self.held.values())
        oldest = now - min(ready) if ready else None
        return LaneStats(lane, len(ready), len(found) - len(ready), running, oldest)

    def rejected(self, lane: str) -> int:
        return 0

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> DramatiqConsumer:
        """Return a consumer of a lane, for tests that start a worker of Dramatiq's own.

        Raises:
            QueueNotFound: the lane was never declared.
        """
        if queue_name not in self.queues:
            raise undeclared(queue_name, self.queues)
        return MemoryConsumer(self, queue_name, timeout_ms=timeout)

    def flush(self, queue_name: str) -> None:
        """Drop every message of a queue and of its retry lane."""
        queue = lane_of_name(queue_name)[0]
        for stored in [stored for stored in self.waiting.values() if lane_of_name(stored.lane)[0] == queue]:
            del self.waiting[stored.id]
            self.release_key(stored.id)

    def flush_all(self) -> None:
        self.waiting.clear()
        self.unique.clear()

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until a queue and its retry lane are empty, for tests that start a worker.

        Raises:
            QueueJoinTimeout: they are not within ``timeout`` milliseconds.
        """
        queue = lane_of_name(queue_name)[0]

        def is_empty() -> bool:
            lanes = [one.lane for one in self.waiting.values()] + [one.queue_name for one in self.held.values()]
            return all(lane_of_name(lane)[0] != queue for lane in lanes)

        with self._changed:
            if not self._changed.wait_for(is_empty, None if timeout is None else timeout / 1000):
                raise QueueJoinTimeout(queue_name)

    def wait_for_message(self, lane: str, timeout_ms: int) -> HeldMessage | None:
        """Hold the next message of a lane, or return ``None`` when none is due in time."""
        with self._changed:
            stored = self.next_ready({lane})
            if stored is None:
                self._changed.wait(timeout_ms / 1000)
                stored = self.next_ready({lane})
            return None if stored is None else self.hold(stored)


class MemoryConsumer(DramatiqConsumer):
    """Messages of one lane, for a worker of Dramatiq's own."""

    def __init__(self, broker: MemoryBroker, lane: str, *, timeout_ms: int) -> None:
        self._broker = broker
        self._lane = lane
        self._timeout_ms = timeout_ms

    def __next__(self) -> MessageProxy | None:
        """Return the next message, or ``None`` when none came in time. At most 20 ms: delays end between two calls."""
        return self._broker.wait_for_message(self._lane, min(self._timeout_ms, 20))

    def ack(self, message: MessageProxy) -> None:
        self._broker.finish(message)

    def nack(self, message: MessageProxy) -> None:
        self._broker.finish(message)

    def requeue(self, messages: Any) -> None:
        for message in messages:
            self._broker.enqueue(message.copy())
            self._broker.finish(message)
