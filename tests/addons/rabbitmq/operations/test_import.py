"""``manage.py switchyard queues import``: messages of stock Dramatiq on RabbitMQ go on as this yard's."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from switchyard.addons.rabbitmq import stock as of_rabbitmq
from tests.factories.commands import output_of
from tests.integration.queues.test_import import (
    message,
    ran,
    test_a_delayed_message_keeps_its_due_time_on_a_host_with_a_wrong_clock,
    test_queues_that_the_old_server_lacks_are_left_out,
    test_what_is_refused_ends_no_import_and_is_said_again,
    test_what_stock_dramatiq_left_runs_here_under_its_ids,
)

__all__ = [
    "ran",
    "test_a_delayed_message_keeps_its_due_time_on_a_host_with_a_wrong_clock",
    "test_queues_that_the_old_server_lacks_are_left_out",
    "test_what_is_refused_ends_no_import_and_is_said_again",
    "test_what_stock_dramatiq_left_runs_here_under_its_ids",
]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def broker(rabbitmq_server) -> Iterator[Any]:
    broker: Any = RabbitmqBroker(url=rabbitmq_server.url, middleware=[])
    broker.declare_queue("default", ensure=True)
    broker.flush("default")
    yield broker
    broker.flush("default")
    broker.close()


@pytest.fixture
def stock(broker, facilities, rabbitmq_server) -> tuple[Any, str]:
    return broker, rabbitmq_server.url


@pytest.fixture
def of_stock(monkeypatch) -> Any:
    """Constants of the module that imports; it does not wait long."""
    monkeypatch.setattr(of_rabbitmq, "IDLE_MS", 300)
    return of_rabbitmq


def test_an_import_prints_nothing_of_its_client(facilities, rabbitmq_server, of_stock, caplog):
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.INFO, "pika")  # as where the yard is on Redis

    output_of("queues", "import", rabbitmq_server.url, "default")

    assert [record.message for record in caplog.records if record.name.startswith("pika")] == []


def test_what_is_no_message_does_not_end_the_import(ran, facilities, rabbitmq_server, broker):
    broker.channel.basic_publish("", "default", b"no message")
    broker.enqueue(message(1))

    lines = output_of("queues", "import", rabbitmq_server.url, "default").splitlines()

    assert lines[0] == "default: 1 message imported"
    assert "1 are not messages of Dramatiq; they stay on its server" in lines[1]


def test_what_waits_behind_more_refused_ones_than_are_delivered_is_told(
    ran, facilities, rabbitmq_server, broker, of_stock, monkeypatch
):
    monkeypatch.setattr(of_stock, "PREFETCH", 5)
    monkeypatch.setattr(of_stock, "MOST_PREFETCH", 10)
    for number in range(10):
        broker.enqueue(message(number, no_such_option=1))
    broker.enqueue(message(10))

    lines = output_of("queues", "import", rabbitmq_server.url, "default").splitlines()
    broker.flush("default")
    for number in range(9):
        broker.enqueue(message(number, no_such_option=1))
    broker.enqueue(message(9))
    reached = output_of("queues", "import", rabbitmq_server.url, "default").splitlines()

    assert lines[0] == "default: 0 messages imported"
    assert "messages that wait behind these were not reached" in lines[-1]
    assert reached[0] == "default: 1 message imported"
    assert not any("not reached" in line for line in reached)
