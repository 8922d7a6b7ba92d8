"""``manage.py switchyard broker`` tells of RabbitMQ and of the server beside it."""

from __future__ import annotations

import dataclasses
import json

import pika
from django.conf import settings
from django.test import override_settings

from switchyard.broker.interface import Facilities
from switchyard.conf import declared_yard
from tests.addons.rabbitmq.server import RabbitServer
from tests.addons.rabbitmq.yards import settings_of
from tests.factories.commands import end_of


def broker_command(url: str, *arguments: str) -> tuple[int, str]:
    """Run the command with a RabbitMQ; return its exit code and what it prints."""
    with override_settings(SWITCHYARD=dataclasses.replace(settings.SWITCHYARD, **settings_of(url))):
        return end_of("broker", *arguments)


def test_command_checks_a_rabbitmq_beside_its_redis(facilities: Facilities, rabbitmq_server: RabbitServer) -> None:
    answers = broker_command(rabbitmq_server.url)
    code, away = broker_command("amqp://guest:guest@127.0.0.1:1/")

    assert answers == (0, "broker: nothing is wrong with RabbitMQ and the Redis server beside it\n")
    assert code == 1
    assert away.startswith("error: RabbitMQ does not take a connection (") and "rabbitmqctl status" in away


def test_command_tells_of_both_servers(evicting: None, facilities: Facilities, rabbitmq_server: RabbitServer) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url))
    queue = f"{declared_yard().keys.prefix}.EMPTY"
    connection.channel().queue_delete(queue)
    connection.channel().queue_declare(queue, durable=True)  # a classic one
    try:
        code, printed = broker_command(rabbitmq_server.url, "--json")
    finally:
        connection.channel().queue_delete(queue)
        connection.close()

    told = json.loads(printed)
    assert (code, told["ok"]) == (1, False)
    assert {"evicting", "rabbitmq_refuses"} <= {found["code"] for found in told["findings"]}


def test_command_tells_of_queues_of_another_type(facilities: Facilities, rabbitmq_server: RabbitServer) -> None:
    queue = f"{declared_yard().keys.prefix}.{declared_yard().lanes[0]}"
    names = (f"{queue}.XQ", queue)
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url))
    channel = connection.channel()
    for name in names:
        channel.queue_delete(name)
        channel.queue_declare(name, durable=True)  # a classic one
    try:
        code, printed = broker_command(rabbitmq_server.url)
    finally:
        for name in names:
            channel.queue_delete(name)
        connection.close()

    assert code == 1
    assert printed.startswith("error: RabbitMQ refuses: 406") and queue in printed
    assert "SWITCHYARD_RABBITMQ_QUEUES" in printed
