from __future__ import annotations

import dataclasses
import io
import json
import logging
import threading
from collections.abc import Iterator

import pika
import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.test import Client, override_settings

from switchyard.broker.interface import Facilities
from switchyard.conf import declared_yard
from switchyard.operations import api
from switchyard.operations.queries import YardState, yard_state
from switchyard.operations.server_state import ServerState, read_server_state
from switchyard.operations.timeouts import TimedCall
from tests.factories.callers import Caller
from tests.rabbit import RabbitServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def full(facilities: Facilities, valkey: redis.Redis) -> Iterator[None]:
    """The broker's memory is full."""
    valkey.config_set("maxmemory", 1)
    yield
    valkey.config_set("maxmemory", 0)


@pytest.fixture
def replica(facilities: Facilities, valkey: redis.Redis) -> Iterator[None]:
    """The broker became a replica, as after a failover that went wrong."""
    valkey.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield
    valkey.execute_command("REPLICAOF", "NO", "ONE")


@pytest.fixture
def evicting(facilities: Facilities, valkey: redis.Redis) -> Iterator[None]:
    """The server is configured as a cache, which evicts keys."""
    valkey.config_set("maxmemory-policy", "allkeys-lru")
    yield
    valkey.config_set("maxmemory-policy", "noeviction")


def asked(found: Facilities) -> ServerState:
    return read_server_state(found.records.calls, found.records.keys)


def test_healthy_server_takes_work_and_is_left_as_it_was(facilities: Facilities, valkey: redis.Redis) -> None:
    before = valkey.dbsize()

    assert asked(facilities) == ServerState()
    assert valkey.dbsize() == before


def test_full_broker_is_not_ready_and_says_why(full: None) -> None:
    answer = Client().get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["dependencies"]["broker"] == {"ok": False, "fact": "accepts no work: its memory is full"}


def test_broker_that_would_drop_work_is_not_ready_and_says_why(evicting: None) -> None:
    answer = Client().get("/readyz")

    assert answer.status_code == 503
    assert "allkeys-lru" in answer.json()["dependencies"]["broker"]["fact"]


def test_broker_whose_keyspace_is_missed_is_not_ready_until_it_is_accepted(
    facilities: Facilities, valkey: redis.Redis
) -> None:
    valkey.sadd(facilities.records.keys.generations_missed(), "0123")

    missed = Client().get("/readyz")
    out = io.StringIO()
    call_command("switchyard", "broker", "accept", stdout=out)
    accepted = Client().get("/readyz")

    assert missed.status_code == 503
    assert "emptied" in missed.json()["dependencies"]["broker"]["fact"]
    assert "accepted" in out.getvalue()
    assert accepted.status_code == 200


def test_command_shows_what_is_wrong_and_what_to_do(
    evicting: None, facilities: Facilities, valkey: redis.Redis
) -> None:
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("switchyard", "broker", stdout=out)

    assert ended.value.code == 1
    assert "error: maxmemory-policy is 'allkeys-lru'" in out.getvalue()
    assert "CONFIG SET maxmemory-policy noeviction" in out.getvalue()


def broker_command(url: str, *arguments: str) -> tuple[int, str]:
    """Run the command with a RabbitMQ; return its exit code and what it prints."""
    out = io.StringIO()
    with override_settings(SWITCHYARD=dataclasses.replace(settings.SWITCHYARD, rabbitmq_url=url)):
        try:
            call_command("switchyard", "broker", *arguments, stdout=out)
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue()
    return 0, out.getvalue()


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


def test_refused_request_is_logged_with_the_servers_words(full: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "switchyard.api.exception_handlers"):
        answer = Caller().post("/emails", {"to": "ada@example.com", "template": "password_reset"})

    assert answer.status_code == 503
    assert "used memory > 'maxmemory'" in caplog.text


def test_queues_of_a_broker_that_hangs_are_refused_in_time(
    facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def hang() -> YardState:
        answered.wait(60)
        return yard_state()

    monkeypatch.setattr(api, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(api, "YARD_STATE", TimedCall("broker", hang))

    answer = Caller().get("/queues")
    answered.set()

    assert answer.status_code == 503
    assert "Retry-After" in answer
