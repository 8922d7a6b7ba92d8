"""Consumer of one lane on a RabbitMQ server: its queues of all levels, over one connection."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from heapq import heapify, heappop, heappush, nlargest
from typing import TYPE_CHECKING, Any, Final

from dramatiq.broker import Consumer as DramatiqConsumer
from dramatiq.broker import MessageProxy
from dramatiq.common import q_name
from dramatiq.message import Message
from dramatiq.middleware import MiddlewareError

from switchyard.addons.rabbitmq.connections import (
    AWAY,
    QueueConsumers,
    connect,
    disconnect,
    refuse_other_type,
    unavailable,
)
from switchyard.addons.rabbitmq.outgoing import (
    UNREAD,
    Outgoing,
    Publication,
    RabbitMessage,
    ends_suspicion,
    id_of,
    is_unstarted,
    read,
)
from switchyard.addons.rabbitmq.redeliveries import LaterDeliveries, WaitingMessages
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError, BrokerRefused, BrokerUnavailable
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import Lease, QueueOperations
from switchyard.broker.worker.prefetch import POLL_CANCELLATIONS_S

if TYPE_CHECKING:
    from switchyard.addons.rabbitmq.broker import RabbitBroker

CHECK_OLD_S: Final = 1.0
# The connection is served after so long a time of moving what is due.
MOVE_S: Final = 1.0
# Delayed messages that are kept in Redis in one go, and when they are due at the earliest.
KEPT_AT_ONCE: Final = 100
KEPT_FROM_S: Final = 5.0

logger = logging.getLogger("switchyard.broker")


class RabbitConsumer(DramatiqConsumer):
    """Receives messages of a lane and acknowledges them, in batches, once their records are written.

    Only the thread that calls :meth:`__next__` uses the connection; other threads leave it what is to be sent. When the
    connection ends, the server gives all that is not acknowledged to others. Messages that no thread had started are
    dropped here then. One that runs and is delivered again to this process is acknowledged as the new delivery.

    ``lane`` may be the queue of its delayed messages, ``work.DQ``; ``prefetch`` is for each level. Delayed messages are
    never handed out: those that are due are enqueued, and then acknowledged. Where as many are held as the server
    delivers, those that are due last go to Redis, as long delays do: others may be behind them.
    """

    def __init__(
        self, broker: RabbitBroker, family: QueueOperations, lane: str, *, prefetch: int, timeout_ms: int
    ) -> None:
        self._broker, self._family, self._lane = broker, family, lane
        self._holds_delayed = lane != q_name(lane)
        self._runs_alone = broker.lane(q_name(lane))[1] == "alone"
        self._timeout_s = timeout_ms / 1000
        self.owner = broker.new_owner(lane)
        self.closed = False
        self._ready: deque[RabbitMessage] = deque()
        self._delayed: list[tuple[float, int, RabbitMessage]] = []  # a heap: when it is due, its tag
        self._prefetch = prefetch
        # Tag, id, body and fault of deliveries that are no message, or are refused; unacknowledged until set aside.
        self._unreadable: deque[tuple[int, str, bytes, Exception, Message[Any] | None]] = deque()
        self._later = LaterDeliveries(broker.redeliveries)
        self.waiting = WaitingMessages(broker.redeliveries, broker.delivering)
        self._woken = self._away = False
        self._check_old_s = 0.0
        self._connection = connect(broker.parameters)
        try:
            self._channel = self._connection.channel()
            names = list(broker.server_queues.of(lane))
            self.outgoing = Outgoing(
                self._channel,
                broker.barrier,
                window=prefetch * len(names),
                queue=family.keys.queue,
                note_returns=broker.redeliveries.note_returns_or_log if not self._holds_delayed else None,
                held=broker.held_marks if not self._holds_delayed else None,
            )
            for name in names:
                broker.server_queues.declare(self._channel, lane, name)
            self._queues = QueueConsumers(
                self._connection,
                self._channel,
                names,
                self._receive,
                held=lambda: len(self.outgoing.unacked),
                prefetch=prefetch,
            )
            self._queues.start()
        except AWAY as error:
            self._disconnect()
            refuse_other_type(error)
            raise unavailable("a consumer", error) from error

    @property
    def settled(self) -> bool:
        """Whether nothing is left to acknowledge or to return."""
        return self.closed or not (self.outgoing.pending or (self._broker.draining and self._queues.active))

    def __next__(self) -> RabbitMessage | None:
        """Return the next message, or ``None`` when none came within the timeout.

        Raises:
            BrokerError: the server is away, or refused something: Dramatiq requests another consumer.
        """
        give_up_s = time.monotonic() + self._timeout_s
        try:
            while True:
                self._woken = False
                if self._queues.ended is not None:
                    raise self._queues.ended
                self.outgoing.send(busy=bool(self._ready))
                if self._later or self._unreadable:
                    self._admit()
                self._move_due()
                stops = self._broker.draining or self._broker.quiet()
                if stops:
                    self._queues.stop()
                    self._give_back_ready()
                elif self._ready:
                    if (message := self._hand_out()) is not None:
                        return message
                    continue
                else:
                    self._queues.start()
                if not self._holds_delayed:
                    self._give_back_old()
                    self._broker.cancellations.run(self._broker.in_flight)
                next_s = self._delayed[0][0] if self._delayed else give_up_s
                left_s = min(next_s, give_up_s) - time.monotonic()
                if time.monotonic() >= give_up_s:
                    return None
                soon = self._later or self.outgoing.pending or self._broker.in_flight
                self._connection.process_data_events(
                    time_limit=max(min(left_s, POLL_CANCELLATIONS_S) if soon else left_s, 0)
                )
        except AWAY as error:
            self._lose()
            raise unavailable("a fetch", error) from error
        except BrokerRefused:
            raise
        except BrokerUnavailable as error:  # of the server that keeps the records: messages stay, nothing starts
            if not self._away:
                logger.warning("the consumer of %s waits: %s", self._lane, error)
            self._away = True
            with suppress(*AWAY):
                self._connection.process_data_events(time_limit=self._timeout_s)
            return None

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge a message that ended, or give it back if it was not started. Never fails."""
        assert isinstance(message, RabbitMessage)  # noqa: S101  a worker's messages come from this class
        self._end_suspicion(message)
        with self._broker.delivering:
            self._broker.leave(message)
            source: Any = message.source
            lost = source.closed
            if message.given_back:
                return
            if not lost:
                if is_unstarted(message):
                    source.outgoing.give_back(message.tag)
                else:
                    source.outgoing.ack(message.tag)
        if not lost:
            source._wake()
        elif not is_unstarted(message):
            self._broker.redeliveries.note_ends_or_log([Publication(message.message_id, message.lease.token)])

    def nack(self, message: MessageProxy) -> None:
        """Have the server reject a message that no middleware moved: it goes to the queue of rejected messages."""
        assert isinstance(message, RabbitMessage)  # noqa: S101  see ack
        if message.moved:
            self.ack(message)
            return
        self._end_suspicion(message)
        source: Any = message.source
        with self._broker.delivering:
            self._broker.leave(message)
            if not source.closed:
                source.outgoing.reject(message.tag)
        source._wake()

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        for message in messages:
            assert isinstance(message, RabbitMessage)  # noqa: S101  see ack
            source: Any = message.source
            with self._broker.delivering:
                self._broker.leave(message)
                if message.given_back or message.moved:
                    continue
                message.given_back = True
                if not source.closed:
                    source.outgoing.give_back(message.tag)
            source._wake()

    def close(self) -> None:
        """Acknowledge what has ended; the server gives everything else to others."""
        if self.closed:
            return
        try:
            self._queues.stop()
            self.outgoing.send()
        except (BrokerError, *AWAY) as error:
            logger.warning("acknowledgements of %s were not sent, those jobs may run again: %s", self._lane, error)
        self._lose()

    def _receive(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Keep a delivered message until it is handed out; set aside what is no message."""
        tag = method.delivery_tag
        self.outgoing.unacked[tag] = UNREAD
        message = None
        try:
            message, number = read(properties, body, self._lane)
            if not message.options.keys() <= codec.VALIDATED:
                self._broker.emit_before("receive_message", message)
        except (codec.UnreadableMessage, MiddlewareError) as error:
            id_ = codec.usable_id(id_of(properties).encode()) or f"unreadable-{time.time_ns()}"
            self._unreadable.append((tag, id_, body, error, message))
            return
        self.outgoing.receive(tag, Publication(message.message_id, number))
        lease = Lease(self.owner, message.message_id.encode(), number)
        held = RabbitMessage(message, lease, self._family, source=self, tag=tag, body=body)
        if method.redelivered or (self._runs_alone and not self._holds_delayed):
            self._later.add(held, again=method.redelivered and not self._holds_delayed, wait=method.redelivered)
        else:
            self._ready.append(held)

    def _hand_out(self) -> RabbitMessage | None:
        """Return the next ready message, unless it is delayed, or one of its id runs here."""
        message = self._ready.popleft()
        if self._holds_delayed or message.options.get("eta") is not None:
            self._broker.emit_before("delay_message", message)
            delay_ms = (message.options.pop("eta", None) or 0) - now_ms()
            heappush(self._delayed, (time.monotonic() + delay_ms / 1000, message.tag, message))
            return None
        with self._broker.delivering:
            if message.message_id in self._broker.in_flight:
                self._later.add(message, again=False)
                return None
            self._broker.in_flight[message.message_id] = message
        return message

    def _admit(self) -> None:
        """Make messages ready that were delivered before: without those that have ended, with their crashes."""
        while self._unreadable:  # after BrokerUnavailable the rest is kept
            tag, id_, body, error, refused = self._unreadable[0]
            self._broker.unreadable.set_aside(self._family.keys.queue, q_name(self._lane), id_, body, error)
            self._unreadable.popleft()
            if refused is not None:
                self._broker.emit_after("quarantine_message", refused, error)
            self.outgoing.drop(tag)
        for message, ended in self._later.admit():
            self._away = False
            with self._broker.delivering:
                runs = self._broker.in_flight.get(message.message_id)
                if runs is not None and runs.source is not self and runs.lease.token == message.lease.token:
                    runs.source, runs.tag, runs.lease = self, message.tag, message.lease
                    runs.lapses = message.lapses  # noted as a suspect's by this very delivery, perhaps
                    continue
            if ended:
                self.outgoing.drop(message.tag)
            else:
                self._ready.append(message)

    def _move_due(self) -> None:
        """Enqueue what is due. After ``BrokerUnavailable`` the rest is kept."""
        until_s = time.monotonic() + MOVE_S
        while self._delayed and self._delayed[0][0] <= time.monotonic() < until_s:
            _, tag, message = self._delayed[0]
            self._broker.mover.send(self._without_delay(message), put_off=partial(self._keep, message))
            heappop(self._delayed)
            self.outgoing.drop(tag)
            self._away = False
        if self._holds_delayed and len(self.outgoing.unacked) >= self._prefetch:
            self._make_room()

    def _make_room(self) -> None:
        """Keep in Redis some of what is due last, so that the server delivers what is behind it."""
        from_s = time.monotonic() + KEPT_FROM_S
        try:
            for each in nlargest(KEPT_AT_ONCE, self._delayed):
                due_s, tag, message = each
                if due_s < from_s:
                    break
                self._keep(message, delay_ms=round((due_s - time.monotonic()) * 1000))
                self._delayed.remove(each)
                self.outgoing.drop(tag)
        finally:
            heapify(self._delayed)

    def _keep(self, message: RabbitMessage, *, delay_ms: int) -> None:
        sent = self._without_delay(message)
        self._broker.mover.delays.add(sent.queue_name, sent.message_id, self._broker.body_of(sent), delay_ms=delay_ms)

    def _without_delay(self, message: RabbitMessage) -> Message[Any]:
        found: Message[Any] = message.copy(queue_name=q_name(self._lane))
        return found

    def _give_back_ready(self) -> None:
        while self._ready:
            self.outgoing.give_back(self._ready.popleft().tag)
        for message in self._later.take():
            self.outgoing.give_back(message.tag)

    def _give_back_old(self) -> None:
        """Give back what has waited for a thread for too long, before the server ends the connection; note the rest."""
        if time.monotonic() < self._check_old_s:
            return
        self._check_old_s = time.monotonic() + CHECK_OLD_S
        before_s = time.monotonic() - self._broker.longest_held_ms / 1000
        with self._broker.delivering:
            for message in list(self._broker.in_flight.values()):
                if message.source is self and not message.runs_in and message.received_s < before_s:
                    message.given_back = True
                    self._broker.leave(message)
                    self.outgoing.give_back(message.tag)
        self.waiting.note(self._broker.in_flight, self)

    def _end_suspicion(self, message: RabbitMessage) -> None:
        if ends_suspicion(message) and not message.given_back:
            self._broker.redeliveries.clear(message.family.keys.queue, message.message_id)

    def _wake(self) -> None:
        """End the wait of the thread that uses the connection."""
        if not self._woken:
            self._woken = True
            with suppress(*AWAY):
                self._connection.add_callback_threadsafe(lambda: None)

    def _lose(self) -> None:
        """Give up all messages: the server has given them to others, or will."""
        with self._broker.delivering:
            if self.closed:
                return
            self.closed = True
        self._ready.clear()
        self._delayed.clear()
        self._later.take()
        processed = self._disconnect()
        ended = self.outgoing.ended(processed=processed)
        self._broker.lost(self.owner, ended)
        self.waiting.leave()
        self.outgoing.lose(ended)

    def _disconnect(self) -> bool:
        return disconnect(self._connection)
