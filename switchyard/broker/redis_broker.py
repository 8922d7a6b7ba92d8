"""Dramatiq's broker on Switchyard's queues: immediate wake-up, atomic moves, leases with fencing tokens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from dramatiq.broker import Broker
from dramatiq.errors import ActorNotFound
from dramatiq.message import Message

from switchyard.broker.consumer import Consumer
from switchyard.broker.errors import QueueFull
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration, codec, limits
from switchyard.broker.queue.operations import NO_ROW, HistoryRow, Lease, Move, QueueOperations
from switchyard.broker.redis.addresses import Server
from switchyard.broker.redis.calls import BUDGET_S, calls_on
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores.dead_lists import encode_letter, rejected
from switchyard.broker.topology import FairShare, whole_delay
from switchyard.broker.worker.acks import Acks, record_enqueued
from switchyard.broker.worker.prefetch import KeptSlots, LaneCredit, PrefetchCredit, WorkQueue, join
from switchyard.broker.yard_broker import YardBroker

if TYPE_CHECKING:
    import redis

    from switchyard.broker.queue.leases import SelfManagedLeases

logger = logging.getLogger("switchyard.broker")


class RedisBroker(YardBroker):
    """Keeps messages on a Redis (7 or later) or Valkey (8 or later) server.

    A queue whose name ends with ``-retry`` is the retry lane of the queue before it: both are one family.

    Args:
        client: Connected by :func:`switchyard.broker.redis.connections.connect`, or a server that is to be.
        fair: Queue -> whom it serves in turn.
        knows: Returns whether a broker's actors accept a parked call, see :mod:`switchyard.broker.queue.unroutable`.
        options: Of :class:`switchyard.broker.yard_broker.YardBroker`.
    """

    def __init__(
        self,
        client: redis.Redis | Server,
        keys: Keys,
        *,
        fair: Mapping[str, FairShare] | None = None,
        knows: Callable[[Broker, str], bool] = lambda broker, call: False,
        **options: Any,
    ) -> None:
        super().__init__(calls_on(client), keys, **options)
        self.in_flight: dict[str, HeldMessage] = {}
        self.knows: Callable[[str], bool] = partial(knows, self)
        self.fair = fair or {}
        self._bounded = {queue: share for queue, share in self.fair.items() if share.max_depth}
        self._acks: dict[str, Acks] = {}
        self._consumers: list[Consumer] = []
        self._credit: PrefetchCredit | KeptSlots | None = None
        self._lock = threading.RLock()
        self._child: str | None = None

    # --- A worker's side ---

    @cached_property
    def _own_leases(self) -> SelfManagedLeases:
        from switchyard.broker.queue.leases import SelfManagedLeases  # what only sends has none

        return SelfManagedLeases(self.client, lost=self.lost_lease)

    def become(self, child: str, *, slots: int | None = None) -> None:
        """Work under the name of a pool's child, before anything is consumed. A name is used once.

        Its leases are its parent's to join, renew and reclaim. ``slots`` is the number of messages that run at once, by
        default half of the prefetch credit.
        """
        self._child, self.slots = child, slots
        self.in_flight, self._acks, self._consumers, self._credit = {}, {}, [], None
        self.__dict__.pop("_own_leases", None)

    def credit_of(self, lane_name: str) -> PrefetchCredit | LaneCredit:
        """Return the prefetch credit of a lane: of the worker, once it consumes; with promises, its share."""
        if self._credit is None:
            raise RuntimeError("this process does not consume; the prefetch credit comes with the first consumer")
        if isinstance(self._credit, PrefetchCredit):
            return self._credit
        return LaneCredit(self._credit, next(rank for rank, lanes in enumerate(self.promises) if lane_name in lanes))

    def acks_of(self, family: QueueOperations, owner: str) -> Acks:
        """Return the acknowledgements of an owner, which outlive its consumers."""
        with self._lock:
            acks = Acks(family, owner, barrier=self.barrier, stale=partial(self.report_stale, family))
            return self._acks.setdefault(f"{family.keys.queue} {owner}", acks)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> Consumer:
        """Return a consumer of a lane. Raises ``QueueNotFound`` for one that was never declared.

        Args:
            prefetch: Messages that this process may hold, running ones included, over all lanes.
            timeout: Milliseconds after which a consumer without a message returns ``None``.
        """
        family, lane = self.lane(queue_name)
        with self._lock:
            if self._credit is None:
                slots = self.slots or max(1, prefetch // 2)
                kept = KeptSlots(slots, len(self.promises)) if self.promises else None
                self._credit = kept or PrefetchCredit(prefetch, slots)
            others = [other for other in self._consumers if not other.closed]
            in_use = [other.owner for other in others]
            owner = f"{self._child}/{lane}" if self._child else self._own_leases.owner(family, lane, in_use=in_use)
            consumer = Consumer(self, family, owner, timeout_ms=timeout)
            self._consumers = [*others, consumer]
        for other in others:
            other.share()
        return consumer

    def drain(self) -> None:
        """Fetch nothing from now on. Running messages end, others are released."""
        self.draining = True
        for consumer in self._consumers:
            consumer.interrupt()

    def report_stale(self, family: QueueOperations, leases: Iterable[Lease]) -> None:
        """Log messages that ended here after their lease was lost; call ``after_stale_end`` with the queue for each."""
        for lease in leases:
            fact = "was lost to another worker meanwhile, its end here does not count"
            logger.warning("stale token: message %s %s", str(lease.id, "utf-8"), fact)
            self.emit_after("stale_end", family.keys.queue)

    def lost_lease(self, owner: str) -> None:
        """Stop an owner that lost its lease. In a pool the supervisor notices it as well and replaces the child.

        In a worker that renews its own leases the middleware is notified by ``after_lose_lease``, with the owner.
        """
        if self._child is None and not self._own_leases.drop(owner):
            return  # found by the renewal and by a fetch: reported already
        self.logger.error("%s lost its lease: others have its messages now", owner)
        if self._child is None:
            self.emit_after("lose_lease", owner)

    def close(self) -> None:
        """Release what this process holds, unless its supervisor does so; close the connections until the next use."""
        with self._lock:
            own_leases: SelfManagedLeases | None = self.__dict__.pop("_own_leases", None)
            self.in_flight, self._acks, self._consumers, self._credit = {}, {}, [], None
            self.draining = False
        if own_leases is not None:
            own_leases.stop()
        for calls in (self.calls, *self._stores):
            calls.close()

    # --- Signals and queues ---

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the hooks ``before_<signal>``, first to last; raise a ``MiddlewareError``, log any other exception."""
        if signal == "worker_boot":
            worker = args[0]
            worker.work_queue, self.slots = WorkQueue(), self.slots or worker.worker_threads
        elif signal == "process_message":
            args[0].runs_in = threading.get_ident()
        self.hooks.call_before(self, signal, args, kwargs)  # not by super(): passing them on costs as much as two hooks

    # --- Sending ---

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue a message; one whose id is known, waiting or finished, is not enqueued again.

        A message that this process is working on is moved instead: what Dramatiq's own retries ask for.
        The delay is in milliseconds: a negative one is none, a fraction is rounded up.

        Returns:
            The message; or, when another unfinished one holds its unique key, a copy under that one's id.

        Raises:
            BrokerUnavailable: the server did not answer in 2 s; with ``outcome`` unknown, the message may be there.
            BrokerFull: the server has no memory left. QueueFull: the queue is at its limit.
            QueueNotFound: the queue was never declared. TypeError: it is no message.
        """
        codec.require_message(message)
        family, lane = self.lane(message.queue_name)
        delay = delay and whole_delay(delay)
        if (held := self._held_by_sender(message, family)) is not None:
            if self.move(held, message, move="divert", delay=delay):
                record_enqueued(self.barrier, 1, family.keys.queue)
            return message
        self.emit_before("enqueue", message, delay)
        if self._bounded and not delay:
            self._require_places_in_line((message,))
        if self.postpone is not None and not self.postpone((message,), delay):
            return message
        entry, limit = codec.entry_of(message, self.actors), self.limits.of(message.queue_name)
        level = self.level(message)
        [id_] = family.enqueue((entry,), lane=lane, delay_ms=delay or 0, level=level, limit=limit)
        if id_ != entry.id:
            self.emit_after("yield_to_holder", message)
            return message.copy(message_id=id_)
        self.emit_after("enqueue", message, delay)
        record_enqueued(self.barrier, 1, family.keys.queue)
        return message

    def enqueue_many(self, messages: Iterable[Message[Any]], *, delay: int | None = None) -> list[Message[Any]]:
        """Enqueue messages, 500 of a lane in one call to the server; see :meth:`enqueue`.

        After an error earlier messages may be there: enqueue all again, none is there twice.
        """
        messages, delay = list(map(codec.require_message, messages)), delay and whole_delay(delay)
        if self.hooks.before("enqueue", self.middleware):
            for message in messages:
                self.emit_before("enqueue", message, delay)
        if self._bounded and not delay:
            self._require_places_in_line(messages)
        now = messages if self.postpone is None else self.postpone(messages, delay)
        if len(now) == len(messages):
            return self.put(messages, delay=delay)
        standing = dict(zip((each.message_id for each in now), self.put(now, delay=delay), strict=True))
        return [standing.get(message.message_id, message) for message in messages]

    def put(
        self, messages: Sequence[Message[Any]], *, delay: int | None = None, budget_s: float = BUDGET_S
    ) -> list[Message[Any]]:
        """Enqueue messages whose hooks before that have run, as :meth:`enqueue_many` does.

        Args:
            delay: Milliseconds, a whole number.
            budget_s: Seconds for each call to the server.
        """
        messages = list(messages)
        by_lane: dict[tuple[str, int], list[int]] = {}
        for position, message in enumerate(messages):
            by_lane.setdefault((message.queue_name, self.level(message)), []).append(position)
        standing = [message.message_id for message in messages]
        queues: set[str] = set()
        for (queue_name, level), positions in by_lane.items():
            family, lane = self.lane(queue_name)
            queues.add(family.keys.queue)
            entries = (codec.entry_of(messages[position], self.actors) for position in positions)
            how: dict[str, Any] = {"limit": self.limits.of(queue_name), "budget_s": budget_s}
            ids = family.enqueue(entries, lane=lane, delay_ms=delay or 0, level=level, **how)
            for position, id_ in zip(positions, ids, strict=True):
                standing[position] = id_
        has_after = self.hooks.after("enqueue", self.middleware)
        for position, message in enumerate(messages):
            if standing[position] != message.message_id:
                self.emit_after("yield_to_holder", message)
                messages[position] = message.copy(message_id=standing[position])
            elif has_after:
                self.emit_after("enqueue", message, delay)
        record_enqueued(self.barrier, len(messages), *queues)
        return messages

    def require_room(self, queue_name: str) -> None:
        """Raise ``QueueFull`` for a queue at its limit, ``BrokerUnavailable`` when the server does not answer."""
        family, lane = self.lane(queue_name)
        if not (limit := self.limits.of(queue_name)):
            return
        keys = family.keys
        commands = [("ZCARD", keys.due(lane)), *(("LLEN", key) for key in keys.waiting(lane))]
        if (depth := sum(family.calls.pipeline(commands))) >= limit:
            raise QueueFull(queue_name, depth, limit)

    def _require_places_in_line(self, messages: Sequence[Message[Any]]) -> None:
        for queue, share in {} if administration.follows_a_job() else self._bounded.items():
            if its := [message for message in messages if message.queue_name == queue]:
                limits.require_places_in_line(self.lane(queue)[0], share, its, self.actors)

    def _held_by_sender(self, message: Message[Any], family: QueueOperations) -> HeldMessage | None:
        """Return the held message of the same id that the caller runs; for other threads such an id is merely known."""
        held = self.in_flight.get(message.message_id)
        if held is None or held.family is not family or held.moved:
            return None
        itself: object = message
        return held if held is itself or held.runs_in == threading.get_ident() else None

    # --- Moves of held messages: one step on the server each, so that a message is never in two places or in none ---

    def move(self, held: HeldMessage, message: Message[Any], *, move: Move, delay: int | None) -> bool:
        """Move a held message into the lane that its copy ``message`` names, in the queue family it is in.

        The copy may have grown beyond the size that a new message may have; ``delay`` is in milliseconds. Returns
        ``False`` when the lease was lost: another worker has the message by now, and the loss is reported.
        """
        lane = self.lane(message.queue_name)[1]
        self.emit_before("enqueue", message, delay)
        body, level = codec.encode(message, grown=True), self.level(message)
        how: dict[str, Any] = {"body": body, "delay_ms": delay or 0, "level": level, "row": self._row_of(held)}
        moved = held.family.move(held.lease, move=move, lane=lane, **how)
        self._note_move(held, moved)
        if moved:
            self.emit_after("enqueue", message, delay)
        return moved

    def isolate(self, held: HeldMessage) -> None:
        self._note_move(held, held.family.isolate(held.lease))

    def dead_letter(self, held: HeldMessage, dead_letter: DeadLetter | None = None) -> None:
        """Move a held message to the dead list; without a dead letter, one is made of Dramatiq's rejection."""
        if dead_letter is None:
            dead_letter = rejected(held, held.family.keys.queue, held._exception or ActorNotFound(held.actor_name))
        letter, row = encode_letter(dead_letter).encode(), self._row_of(held)
        self._note_move(held, held.family.dead_letter(held.lease, letter, row))

    def _row_of(self, held: HeldMessage) -> HistoryRow:
        """Return the row of the attempt that ends with the move; of a deferral there is none."""
        return NO_ROW if self.barrier is None else self.barrier.row_of(held)

    def _note_move(self, held: HeldMessage, moved: bool) -> None:
        held.moved = True
        if not moved:
            self.report_stale(held.family, [held.lease])

    # --- Emptying and waiting ---

    def flush(self, queue_name: str) -> None:
        """Drop every message of a queue and of its retry lane; dead letters stay."""
        administration.flush(self.lane(queue_name)[0])

    def flush_all(self) -> None:
        for family in self.families.values():
            administration.flush(family)

    def join(self, queue_name: str, *, timeout: int | None = None, interval: int = 20) -> None:
        """Wait until a queue and its retry lane are empty; for tests. ``timeout`` and ``interval`` are in milliseconds.

        Raises ``QueueJoinTimeout`` when they are not.
        """
        family, _ = self.lane(queue_name)
        join(queue_name, partial(family.calls.command, "HLEN", family.keys.bodies), timeout=timeout, interval=interval)
