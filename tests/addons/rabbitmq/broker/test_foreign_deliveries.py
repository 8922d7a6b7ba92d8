"""Deliveries that other programs made: none of them keeps a consumer from the messages behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
import pika
import pytest

from switchyard.addons.rabbitmq.frames import CONTENT_TYPE
from switchyard.broker.worker.prefetch import CELLS, HeldMarks
from tests.waiting import wait_for

Build = Callable[..., Any]
QUEUE = "work"
OURS = b'{"actor":"job","sent_at":1}'


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"content_type": CONTENT_TYPE, "message_id": "a", "correlation_id": "²"}, OURS),
        ({"content_type": CONTENT_TYPE, "message_id": b"caf\xe9"}, OURS),
        ({"message_id": b"caf\xe9"}, b"no message"),
        ({}, b'{"queue_name":"work","actor_name":"job","args":[],"kwargs":{},"options":{},"message_id":5}'),
        ({}, b"[" * 100_000),
    ],
    ids=["a number of other digits", "an id in Latin-1", "no message, of such an id", "a number as id", "nested"],
)
def test_the_message_behind_a_foreign_one_is_handed_out(rabbit_yard: Build, fields: Any, body: bytes) -> None:
    broker = rabbit_yard()
    broker.held_marks = HeldMarks(memoryview(bytearray(8 * CELLS)).cast("q"))  # as a pool's child has them
    job = dramatiq.actor(lambda: None, broker=broker, queue_name=QUEUE, actor_name="job")
    with broker.publishers.channel() as channel:
        name = broker.server_queues.name(QUEUE)
        broker.server_queues.declare(channel, QUEUE, name)
        channel.basic_publish("", name, body, pika.BasicProperties(delivery_mode=2, **fields))
    behind = job.send().message_id

    consumer = broker.consume(QUEUE, prefetch=8, timeout=200)
    found: list[str] = []

    def handed_out() -> bool:
        if (message := next(consumer)) is not None:
            found.append(message.message_id)
            consumer.ack(message)
        return behind in found

    wait_for(handed_out)
    consumer.outgoing.send()
    assert found in ([behind], ["a", behind], [r"caf\xe9", behind])
