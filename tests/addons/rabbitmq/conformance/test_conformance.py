"""The promises of every transport, on RabbitMQ; requeues of one dead letter by several operators, and repeated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
import redis
from dramatiq.broker import MessageProxy
from dramatiq.middleware import MiddlewareError

from switchyard.addons.rabbitmq import unique_claims
from switchyard.addons.rabbitmq.broker import RabbitBroker, RabbitTransport
from switchyard.addons.rabbitmq.outgoing import read
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Transport
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.shapes import Moved
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.topology import Yard
from tests.integration.broker.conformance.subjects import YARD, Meanwhile, Promises, Subject
from tests.integration.broker.conformance.test_letters import *  # noqa: F403
from tests.integration.broker.conformance.test_letters import dead_letter
from tests.integration.broker.conformance.test_moves import *  # noqa: F403
from tests.waiting import wait_for

ON_RABBITMQ = Promises(
    places=2, requeues_what_it_read=False, takes_out=False, isolates=True, lists_parked=False, tells_all=False
)


def requeues(subject: Rabbit) -> Callable[[str], Moved]:
    made = dead_letter(subject)
    return lambda nonce: subject.transport.requeue("work", {made.id: made.died_at}, nonce=nonce)[made.id]


def test_of_two_requeues_at_a_time_one_sends_the_letter(subject, monkeypatch):
    monkeypatch.setattr(unique_claims, "PATIENCE_S", 0.05)
    requeue, refused = requeues(subject), list[str]()

    def second() -> None:
        with pytest.raises(BrokerUnavailable, match=r"another requeue of .* has not ended") as raised:
            requeue("second")
        refused.append(raised.value.outcome)

    subject.meanwhile.act = second
    answers = [requeue("first"), requeue("second"), requeue("first")]

    assert refused == ["refused"]
    assert answers == ["moved", "gone", "moved"]
    assert subject.transport.stats("work").live.waiting == 1


def test_a_letter_whose_requeue_failed_is_requeued_at_once(subject):
    requeue = requeues(subject)

    def refuse() -> None:
        raise MiddlewareError("of a release that knows its actor no more")

    subject.meanwhile.act = refuse

    assert [requeue("first"), requeue("second")] == ["unread", "moved"]
    assert subject.transport.stats("work").live.waiting == 1


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


@pytest.fixture(params=["quorum", pytest.param("classic", marks=pytest.mark.long)])
def subject(request, valkey, rabbitmq_server) -> Iterator[Rabbit]:
    subject = Rabbit(valkey, rabbitmq_server.url, request.param)
    yield subject
    subject.close()
