"""Dramatiq's broker for RabbitMQ with quorum queues and confirmed publishing, and the transport of a yard on it."""

import itertools
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import redis
from dramatiq.actor import Actor
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.common import dq_name, q_name
from dramatiq.message import Message

from switchyard.addons.rabbitmq.connections import (
    AWAY,
    PUBLISH_S,
    PublicationFields,
    Publishers,
    QueueType,
    RabbitQueues,
    parameters_of,
    unavailable,
)
from switchyard.addons.rabbitmq.consumer import RabbitConsumer
from switchyard.addons.rabbitmq.majority import UNCONFIRMED, confirms
from switchyard.addons.rabbitmq.outgoing import Publication, RabbitMessage
from switchyard.addons.rabbitmq.redeliveries import Redeliveries, start
from switchyard.addons.rabbitmq.unique_claims import Mover, Requeues, UniqueClaims
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import QueueFull
from switchyard.broker.held_message import moved_copy
from switchyard.broker.interface import Arguments, Held
from switchyard.broker.keys import Keys
from switchyard.broker.portable_transport import PortableTransport
from switchyard.broker.queue import codec
from switchyard.broker.queue.arguments import in_json
from switchyard.broker.redis.calls import RedisCalls, calls_on
from switchyard.broker.shapes import LaneStats, Moved
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.topology import Yard, whole_delay
from switchyard.broker.worker.acks import AckBarrier, record_enqueued
from switchyard.broker.worker.prefetch import WorkQueue, join
from switchyard.broker.yard_broker import YardBroker
from switchyard.middleware.errors import InvalidOption, place_of
from switchyard.middleware.unique_keys import POLICIES
from switchyard.wiring import depths

# A purge declares the queues of a lane first, which takes a while each.
PURGE_S: Final = 30.0
# Time to send the last acknowledgements of a worker that ends.
SETTLE_S: Final = 2.0


class RabbitBroker(YardBroker, RabbitmqBroker):
    """Keeps messages on a RabbitMQ server; a Redis or Valkey server beside it keeps what moves nothing.

    Args:
        url: ``amqp://`` or ``amqps://``.
        calls: Access to the server beside it: cancellations, quarantine, notes of crashes.
        queue_type: Of all queues; those that exist cannot be changed.
        consumer_timeout_s: The server's setting: how long it lets a worker hold a message.
        claims: Of unique keys; without them each message is sent.
        options: Of :class:`switchyard.broker.yard_broker.YardBroker`. Limits are read before a send, so that concurrent
            sends may exceed them.
    """

    def __init__(
        self,
        url: str,
        calls: RedisCalls,
        keys: Keys,
        *,
        queue_type: QueueType = "quorum",
        consumer_timeout_s: int = 1_800,
        claims: UniqueClaims | None = None,
        **options: Any,
    ) -> None:
        super().__init__(calls, keys, **options, confirm_delivery=True, parameters=[], middleware=[])
        self.parameters = parameters_of(url)
        # A worker may hold a message for half of it before it starts, and for half of it afterwards.
        self.longest_held_ms = consumer_timeout_s * 1000 // 2
        self.server_queues = RabbitQueues(keys.prefix, queue_type)
        self.publishers = Publishers(self.parameters)
        self.in_flight: dict[str, RabbitMessage] = {}
        self.claims = claims
        self.delivering = threading.RLock()
        self.redeliveries, self.unreadable = Redeliveries(calls, keys), Quarantine(calls, keys)
        self.mover = Mover(calls, keys, lanes=lambda: sorted(self.queues), enqueue=self.enqueue)
        self._consumers: list[RabbitConsumer] = []
        self._numbers, self._name = itertools.count(1), ""

    # --- A worker's side ---

    def become(self, child: str, *, slots: int | None = None) -> None:
        """Work under the name of a pool's child. Call it in the child, before anything is consumed."""
        self._name, self.slots = child, slots
        self.in_flight, self._consumers = {}, []

    def new_owner(self, lane: str) -> str:
        """Return a name for a consumer that was never used."""
        name = self._name or f"{socket.gethostname()}.{os.getpid()}"
        return f"{name}/{lane}#{next(self._numbers)}"

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> RabbitConsumer:
        """Return a consumer of a lane, or of the queue of its delayed messages. ``QueueNotFound`` if undeclared.

        Args:
            prefetch: Messages of each level that the server delivers ahead.
            timeout: Milliseconds after which a consumer without a message returns ``None``.
        """
        family, _ = self.lane(q_name(queue_name))
        consumer = RabbitConsumer(self, family, queue_name, prefetch=prefetch, timeout_ms=timeout)
        self._consumers = [*(other for other in self._consumers if not other.closed), consumer]
        return consumer

    def drain(self) -> None:
        """Stop delivering. Running messages end, others are returned."""
        self.draining = True

    def leave(self, message: RabbitMessage) -> None:
        if self.in_flight.get(message.message_id) is message:
            del self.in_flight[message.message_id]

    def lost(self, owner: str, ended: Sequence[Publication]) -> None:
        """Report that a consumer lost its connection, and the messages that had ended and may be unacknowledged."""
        self.emit_after("lose_lease", owner)
        self.redeliveries.note_ends_or_log(ended)

    def close(self) -> None:
        """Acknowledge what has ended, and close the connections until the next use."""
        for consumer in self._consumers:
            consumer.close()
        self.in_flight, self._consumers, self.draining = {}, [], False
        self.publishers.close()
        for calls in (self.calls, *self._stores):
            calls.close()

    # --- Signals ---

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        if signal == "worker_boot":
            worker = args[0]
            worker.work_queue, self.slots = WorkQueue(self.level), self.slots or worker.worker_threads
        elif signal == "process_message":
            start(args[0], self.delivering)
        super().emit_before(signal, *args, **kwargs)
        if signal == "process_message" and args[0].lapses is not None and self._name and self.runs_suspects:
            self.redeliveries.note_alone(args[0].family.keys.queue, args[0].message_id, args[0].lapses)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        super().emit_after(signal, *args, **kwargs)
        if signal == "worker_boot":
            self.mover.start()
        elif signal == "worker_shutdown":
            self.mover.stop()
            give_up_s = time.monotonic() + SETTLE_S
            while not all(consumer.settled for consumer in self._consumers) and time.monotonic() < give_up_s:
                time.sleep(0.01)

    # --- Queues and results ---

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Declare a queue or retry lane; on the server when it is first used."""
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self._declare_lane(queue_name)
        self.queues.add(queue_name)
        self.emit_after("declare_queue", queue_name)
        delayed = dq_name(queue_name)
        self.delay_queues.add(delayed)
        self.emit_after("declare_delay_queue", delayed)

    def make_leases(self, *arguments: Any) -> Any:
        from switchyard.addons.rabbitmq.leases import RabbitLeases  # of supervisors

        return RabbitLeases(*arguments, keys=self.keys, count=self.count)

    def declare_actor(self, actor: Actor[Any, Any]) -> None:
        """Declare an actor; ``InvalidOption`` for a policy of unique keys, which end with their job's record here."""
        for name in POLICIES:
            if (value := actor.options.get(name)) is not None:
                remedy = "on RabbitMQ a unique key is held until the job has ended; leave it out"
                raise InvalidOption(actor.actor_name, name, value, remedy, place=place_of(actor.fn))
        super().declare_actor(actor)

    # --- Sending ---

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue a message, and return when the server has it. The delay is in milliseconds.

        Raises:
            BrokerUnavailable: the server was away for 2 s, or did not answer for 5 s; the message may be there.
            BrokerRefused: the server refused it. QueueFull: the queue is at its limit.
            QueueNotFound: the queue was never declared. TypeError: it is no message.

        Returns:
            The message; or, when another unfinished one holds its unique key, a copy under that one's id.
        """
        codec.require_message(message)
        lane = message.queue_name
        self.lane(lane)
        delay = delay and whole_delay(delay)
        self.require_room(lane)
        sent = self._as_held(message, delay)
        self.emit_before("enqueue", sent, delay)
        if sent is not message:
            message = sent.copy(queue_name=lane)
        if self.postpone is not None and not self.postpone((message,), delay):
            return message
        return self._put(message, delay)

    def _as_held(self, message: Message[Any], delay: int | None) -> Message[Any]:
        """Return a message as it lies in the queue of delayed ones, if the server is to hold it."""
        is_held = delay and delay <= self.longest_held_ms
        return message.copy(queue_name=dq_name(message.queue_name)) if is_held else message

    def _put(self, message: Message[Any], delay: int | None) -> Message[Any]:
        lane = message.queue_name
        family, _ = self.lane(lane)
        message = self._as_held(message, delay)
        if message.queue_name != lane:  # after the hook that compares this process's clock with the server's
            message.options["eta"] = now_ms() + (delay or 0)
        with self.claims.sending(message, lane) if self.claims else nullcontext(message.message_id) as holder:
            if holder == message.message_id:
                if delay and message.queue_name == lane:
                    self.mover.delays.add(lane, holder, self.body_of(message), delay_ms=delay)
                else:
                    self.publish(message, lane)
        if holder != message.message_id:
            self.emit_after("yield_to_holder", message)
            return message.copy(queue_name=lane, message_id=holder)
        self.emit_after("enqueue", message, delay)
        record_enqueued(self.barrier, 1, family.keys.queue)
        return message

    def enqueue_many(self, messages: Iterable[Message[Any]], *, delay: int | None = None) -> list[Message[Any]]:
        return [self.enqueue(message, delay=delay) for message in messages]

    def put(
        self, messages: Iterable[Message[Any]], *, delay: int | None = None, budget_s: float = 0.0
    ) -> list[Message[Any]]:
        """Enqueue messages whose hooks before that have run. The server's answers are awaited as long as ever.

        Sends none of them to a queue without room for all: its caller sends fewer of them then, and none twice.
        """
        messages = list(messages)
        for lane, count in Counter(message.queue_name for message in messages).items():
            self.require_room(lane, count)
        return [self._put(message, delay) for message in messages]

    def publish(self, message: Message[Any], lane: str) -> None:
        """Publish a message into the queue of its level, or that of delayed messages, without calling hooks."""
        body = self.body_of(message)
        properties = PublicationFields(message.message_id)
        held = message.queue_name != lane
        name = self.server_queues.delayed(lane) if held else self.server_queues.name(lane, self.level(message))
        declare = partial(self.server_queues.declare, lane=lane, name=name)
        self.publishers.publish(name, body, properties, declare=declare)

    def body_of(self, message: Message[Any]) -> bytes:
        codec.require_id(message.message_id)
        return codec.encode(in_json(message, self.actors), grown="attempts" in message.options)

    def require_room(self, lane: str, count: int = 1) -> None:
        """Raise ``QueueFull`` for a queue that so many messages would take beyond its limit."""
        limit = self.limits.of(lane)
        if not limit:
            return
        levels = [(lane, name) for name in self.server_queues.of(lane)]
        if (depth := sum(self.count(levels, patience_s=PUBLISH_S))) + count > limit:
            raise QueueFull(lane, depth, limit)

    def flush(self, queue_name: str) -> None:
        """Drop every message of a lane that no worker holds, what the server rejected included."""
        try:
            with self.publishers.channel(within_s=PURGE_S) as channel:
                for name in self.server_queues.every(queue_name):
                    self.server_queues.declare(channel, queue_name, name)
                    channel.queue_purge(name)
        except AWAY as error:
            raise unavailable("a purge", error) from error
        self.mover.delays.clear(queue_name)

    def join(self, queue_name: str, *, timeout: int | None = None, interval: int = 100) -> None:  # type: ignore[override]
        """Wait until nothing is ready or delayed in a lane and nothing of it runs here; for tests."""
        names = [*self.server_queues.of(queue_name), self.server_queues.delayed(queue_name)]
        counted = [(queue_name, name) for name in names]
        join(queue_name, lambda: bool(self.in_flight or sum(self.count(counted))), timeout=timeout, interval=interval)

    # --- Figures: the server tells a client neither ages, nor what workers hold ---

    def count(self, names: Iterable[tuple[str, str]], *, patience_s: float = 0.0) -> list[int]:
        """Return how many messages are ready in queues of the server: pairs of a lane and a queue, declared if missing.

        A lost connection is made again for ``patience_s``.
        """
        names, give_up_s = list(names), time.monotonic() + patience_s
        while True:
            try:
                with self.publishers.channel() as channel:
                    return [self.server_queues.declare(channel, lane, name) for lane, name in names]
            except AWAY as error:
                if time.monotonic() >= give_up_s:
                    raise unavailable("a count", error, outcome="refused") from error
            time.sleep(0.05)

    def lane_stats(self, lane: str) -> LaneStats:
        """Return what is ready and delayed in a lane; what workers hold until it is due is not counted."""
        names = (*self.server_queues.of(lane), self.server_queues.delayed(lane))
        *ready, delayed = self.count((lane, name) for name in names)
        [later] = self.mover.delays.count([lane])
        return LaneStats(lane, sum(ready), delayed + later, 0, None)

    def rejected(self, lane: str) -> int:
        return self.count([(lane, self.server_queues.rejected(lane))])[0]


class RabbitTransport(PortableTransport):
    """:class:`switchyard.broker.portable_transport.PortableTransport` with isolated runs and the server's figures."""

    def __init__(
        self, broker: RabbitBroker, yard: Yard, dead_lists: DeadLists, quarantine: Quarantine, records: JobRecords
    ) -> None:
        super().__init__(broker, yard, dead_lists, quarantine, records)
        self._rabbit = broker
        self._requeues = Requeues(records.calls, records.keys)

    def requeue(
        self, queue: str, letters: Mapping[str, int], *, nonce: str, arguments: Arguments | None = None
    ) -> dict[str, Moved]:
        """Requeue dead letters one by one, each under a claim: of two requeues at a time one sends it."""
        requeue = partial(super().requeue, queue, nonce=nonce, arguments=arguments)
        return {id_: self._requeues.once(queue, id_, at, nonce=nonce, requeue=requeue) for id_, at in letters.items()}

    def isolate(self, held: Held) -> bool:
        lane = self._yard.queue_of(held.queue_name).alone_lane
        self._rabbit.declare_queue(lane)
        self._rabbit.publish(moved_copy(held, lane, {}), lane)
        held.moved = True  # type: ignore[union-attr]
        return True

    def refusal(self) -> tuple[str, str]:
        """Ask whether the quorum queues confirm, see :func:`switchyard.addons.rabbitmq.majority.confirms`."""
        return ("", "") if confirms(self._rabbit.publishers, self._rabbit.server_queues) else UNCONFIRMED


def on_rabbitmq(
    yard: Yard, client: redis.Redis, records: JobRecords, barrier: AckBarrier, *, url: str, **options: Any
) -> tuple[RabbitBroker, RabbitTransport]:
    """Return the broker of a yard on a RabbitMQ server, with its transport; ``client`` is of the server beside it."""
    calls, keys = records.calls, records.keys
    claims = UniqueClaims(calls, keys, records)
    options = {"limits": depths(yard), "barrier": barrier, "claims": claims, "stores": (calls,), **options}
    broker = RabbitBroker(url, calls_on(client), keys, **options)
    return broker, RabbitTransport(broker, yard, DeadLists(calls, keys), Quarantine(calls, keys), records)
