from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import dramatiq
import pytest
import redis
from django.test import Client

from switchyard.broker.interface import Facilities
from switchyard.operations import api
from switchyard.operations.queries import YardState, yard_state
from switchyard.operations.supervisors import ServerState, read_server_state
from switchyard.operations.timeouts import TimedCall
from tests.factories.callers import Caller
from tests.factories.commands import end_of, output_of

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
    said = output_of("broker", "accept")
    accepted = Client().get("/readyz")

    assert missed.status_code == 503
    assert "emptied" in missed.json()["dependencies"]["broker"]["fact"]
    assert "accepted" in said
    assert accepted.status_code == 200


def test_command_shows_what_is_wrong_and_what_to_do(
    evicting: None, facilities: Facilities, valkey: redis.Redis
) -> None:
    code, said = end_of("broker")

    assert code == 1
    assert "error: maxmemory-policy is 'allkeys-lru'" in said
    assert "CONFIG SET maxmemory-policy noeviction" in said


def test_refused_request_is_logged_with_the_servers_words(
    full: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dramatiq.get_broker().postpone, "keeps_rows", False)  # the outbox would accept it
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
