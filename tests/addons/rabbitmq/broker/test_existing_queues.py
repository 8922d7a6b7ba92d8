"""The check of the types of a yard's queues creates none, and ends in time however many lanes there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from switchyard.addons.rabbitmq import majority
from switchyard.addons.rabbitmq.queues import RabbitQueues
from switchyard.broker.errors import BrokerRefused

QUEUES = RabbitQueues("test-existing")
ALL = [name for lane in ("whole", "bare", "missing") for name in QUEUES.every(lane)]


@pytest.fixture
def connection(rabbitmq_server: Any) -> Iterator[Any]:
    """A connection to a server that has the lane ``whole``, and the lane ``bare`` without its rejected messages."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url))
    channel = connection.channel()
    QUEUES.declare(channel, "bare", QUEUES.name("bare"))
    channel.queue_delete(QUEUES.rejected("bare"))
    QUEUES.declare(channel, "whole", QUEUES.name("whole"))
    yield connection
    channel = connection.channel()
    for name in ALL:
        channel.queue_delete(name)
    connection.close()


def existing(connection: Any) -> list[str]:
    """Return the queues of all lanes that the server has."""
    found = []
    for name in ALL:
        try:
            connection.channel().queue_declare(name, passive=True)
            found.append(name)
        except ChannelClosedByBroker:
            continue
    return found


def test_no_queue_is_created(connection: Any, rabbitmq_server: Any) -> None:
    before = existing(connection)

    majority.ask(rabbitmq_server.url, QUEUES.prefix, "quorum", ["missing", "bare", "whole"])

    assert existing(connection) == before == [QUEUES.name("whole"), QUEUES.rejected("whole"), QUEUES.name("bare")]


def test_a_lane_of_another_type_behind_a_missing_one_is_refused(connection: Any, rabbitmq_server: Any) -> None:
    with pytest.raises(BrokerRefused, match="406"):
        majority.ask(rabbitmq_server.url, QUEUES.prefix, "classic", ["missing", "whole"])


def test_all_lanes_together_have_one_deadline(rabbitmq_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(majority, "TOGETHER_S", 1.0)

    _, confirms, _ = majority.ask(rabbitmq_server.url, QUEUES.prefix, "quorum", (f"none-{n}" for n in range(100_000)))

    assert confirms
