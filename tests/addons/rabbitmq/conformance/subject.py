""":class:`RabbitTransport` under test, on a real server."""

from __future__ import annotations

from typing import Any

import pika
import redis
from dramatiq.broker import MessageProxy

from switchyard.addons.rabbitmq.broker import RabbitBroker, RabbitTransport
from switchyard.addons.rabbitmq.outgoing import read
from switchyard.broker.interface import Transport
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.topology import Yard
from tests.integration.broker.conformance.subjects import YARD, Meanwhile, Promises, Subject
from tests.waiting import wait_for

ON_RABBITMQ = Promises(
    places=2, requeues_what_it_read=False, takes_out=False, isolates=True, lists_parked=False, tells_all=False
)


class Rabbit(Subject):
    """One set of queues for all tests, emptied: quorum queues take a while to declare."""

    def __init__(self, client: redis.Redis, url: str, kind: Any) -> None:
        self.client, self.promises, self.url, self.kind = client, ON_RABBITMQ, url, kind
        self.keys = Keys(f"conformance-{kind}")  # the type of a queue cannot be changed
        calls = RedisCalls(client)
        self.dead_lists, self.quarantine = DeadLists(calls, self.keys), Quarantine(calls, self.keys)
        self.records = JobRecords(calls, self.keys, [queue.name for queue in YARD.queues], finds_waiting=False)
        self.meanwhile = Meanwhile()
        self._consumers: dict[str, Any] = {}
        self.broker, _ = self.build()
        self._holder, self.transport = self.build()
        for lane in (*YARD.lanes, "work-alone"):
            self.broker.flush(lane)

    def build(self) -> tuple[RabbitBroker, Transport]:
        broker = RabbitBroker(self.url, RedisCalls(self.client), self.keys, queue_type=self.kind)
        for entry in self._middleware():
            broker.add_middleware(entry)
        for lane in YARD.lanes:
            broker.declare_queue(lane)
        return broker, self._transport(broker, YARD)

    def _transport(self, broker: RabbitBroker, yard: Yard) -> RabbitTransport:
        return RabbitTransport(broker, yard, self.dead_lists, self.quarantine, self.records)

    def hold(self, lane: str = "work") -> MessageProxy:
        """Hold the next message, and have the server push no other one to the holder."""
        consumer = self._consumers[f"{lane} {len(self._consumers)}"] = self._holder.consume(lane, timeout=100)
        held = wait_for(lambda: next(consumer))
        for tag in list(consumer._channel.consumer_tags):
            consumer._channel.basic_cancel(tag)
        return held

    def settle(self, held: MessageProxy) -> None:
        consumer: Any = held.source
        consumer.ack(held)
        consumer.outgoing.send()  # nothing else runs the consumer's thread

    def places(self, queue: str = "work") -> int:
        """Return in how many places messages are: what the holder has is known here alone."""
        return super().places(queue) + sum(len(consumer.outgoing.unacked) for consumer in self._consumers.values())

    def scheduled(self, **options: Any) -> set[str]:
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            channel, found = connection.channel(), []
            while True:
                method, properties, body = channel.basic_get(f"{self.keys.prefix}.work.DQ")
                if method is None:
                    break
                found.append(read(properties, body, "work.DQ")[0])
        return {message.message_id for message in found if options.items() <= message.options.items()}

    def spoil(self, raw: bytes) -> None:
        before = self.quarantine.count("work")
        with self.broker.publishers.channel() as channel:
            self.broker.server_queues.declare(channel, "work", f"{self.keys.prefix}.work")
            channel.basic_publish("", f"{self.keys.prefix}.work", raw, pika.BasicProperties(delivery_mode=2))
        consumer = self.broker.consume("work", timeout=10)
        wait_for(lambda: next(consumer) is None and self.quarantine.count("work") > before)
        consumer.close()

    def crash(self) -> None:
        for consumer in self._consumers.values():
            consumer._disconnect()
        self._consumers.clear()
