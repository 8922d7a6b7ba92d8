"""Liveness and readiness, and the state of the broker's server as pages, commands and the API have it."""

import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import dramatiq
import pytest
import redis
from django.conf import settings
from django.db import connection
from django.test import Client

from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.pool_reports import PoolReport, PoolReports
from switchyard.operations import api, queries, views
from switchyard.operations.findings import facts as doctor_facts
from switchyard.operations.queries import YardState, yard_state
from switchyard.operations.supervisors import ServerState, read_server_state
from switchyard.operations.timeouts import TimedCall
from switchyard.wiring import build_yard
from tests.factories.brokers import broker_without_server, the_global_broker
from tests.factories.brokers import full as full_server
from tests.factories.callers import Caller
from tests.factories.commands import end_of, output_of

pytestmark = pytest.mark.django_db(transaction=True)


def test_liveness_asks_nobody_and_a_broker_that_is_away_is_named_without_its_address(broker_away):
    lives, answer = Client().get("/healthz"), Client().get("/readyz")

    assert (lives.status_code, lives.content) == (200, b"ok\n")
    assert answer.status_code == 503
    assert answer.json()["dependencies"]["broker"] == {"ok": False, "fact": "ConnectionError"}
    assert answer.json()["dependencies"]["database"]["ok"]
    assert "127.0.0.1" not in answer.content.decode()


def test_readiness_names_each_dependency_and_leaves_the_server(facilities, valkey):
    answer = Client().get("/readyz")

    answers = {"ok": True, "fact": "answers"}
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "dependencies": {"broker": answers, "database": answers}}
    before = valkey.dbsize()

    assert asked(facilities) == ServerState()
    assert valkey.dbsize() == before


@pytest.fixture
def silent_broker() -> Iterator[None]:
    """A broker whose server takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = connect(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        with the_global_broker(build_yard(settings.SWITCHYARD.topology, client, Keys("silent"))):
            yield


def test_broker_that_hangs_is_named_in_time(silent_broker, monkeypatch):
    monkeypatch.setattr(views, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(views, "BROKER", TimedCall("broker", views._ask_broker))

    facts = {Client().get("/readyz").json()["dependencies"]["broker"]["fact"] for _ in range(3)}

    # The call itself gives up after a second: on a busy machine before, or between, two requests.
    assert facts <= {"no answer within 0.2 s", "TimeoutError"}

    assert sum(thread.name == "call broker" for thread in threading.enumerate()) <= 2


def test_database_that_is_away_is_named_without_its_name(facilities, monkeypatch):
    name: Any = connection.settings_dict["NAME"]
    monkeypatch.setitem(connection.settings_dict, "NAME", "/nowhere/canary")
    try:
        answer = Client().get("/readyz")
    finally:
        monkeypatch.setitem(connection.settings_dict, "NAME", name)

    assert answer.status_code == 503
    assert answer.json()["dependencies"]["database"] == {"ok": False, "fact": "OperationalError"}
    assert "canary" not in answer.content.decode()


def test_a_database_without_tables_is_not_ready(facilities):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE switchyard_dead_letters_deadletter RENAME TO moved_away")
    try:
        answer = Client().get("/readyz")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE moved_away RENAME TO switchyard_dead_letters_deadletter")

    fact = "table switchyard_dead_letters_deadletter is missing; run `manage.py migrate`"
    assert answer.status_code == 503
    assert answer.json()["dependencies"]["database"] == {"ok": False, "fact": fact}


@pytest.fixture
def full(facilities: Facilities, valkey: redis.Redis) -> Iterator[None]:
    """The broker's memory is full."""
    with full_server(valkey):
        yield


@pytest.fixture
def evicting(facilities: Facilities, valkey: redis.Redis) -> Iterator[None]:
    """The server is configured as a cache, which evicts keys."""
    valkey.config_set("maxmemory-policy", "allkeys-lru")
    yield
    valkey.config_set("maxmemory-policy", "noeviction")


def asked(found: Facilities) -> ServerState:
    return read_server_state(found.records.calls, found.records.keys)


@pytest.mark.parametrize("meanwhile", ["write", "remove"])
def test_a_supervisor_that_reports_or_ends_while_the_state_is_read_is_not_silent(
    facilities, valkey, slow_pool, monkeypatch, meanwhile
):
    read_all = PoolReports.read_all

    def read(pools: PoolReports) -> list[PoolReport]:
        pools.remove(slow_pool)
        if meanwhile == "remove":
            pools.write(slow_pool)
            valkey.delete(facilities.records.keys.pool_report(slow_pool.member))  # ends right after it reported
        found = read_all(pools)
        if meanwhile == "write":
            pools.write(slow_pool)
        return found

    monkeypatch.setattr(PoolReports, "read_all", read)

    assert yard_state().pools["slow"].silent == () and doctor_facts.read().state.pools["slow"].silent == ()


@pytest.fixture
def clock(facilities: Facilities, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """The clock of the queries, which have missed nothing yet."""
    clock = Mock(return_value=0.0)
    monkeypatch.setattr(queries, "time", Mock(monotonic=clock))
    monkeypatch.setattr(queries, "_missed", {})
    return clock


def test_time_for_reports_begins_with_the_first_answer_again(clock, monkeypatch):
    monkeypatch.setattr(queries, "read_broker_state", lambda _: ServerState())  # it was not restarted
    told: list[float | None] = []
    for away_s, *back_s in ((0.0, 6.0, 13.0, 14.0), (15.0, 15.5), (20.0, 90.0)):
        clock.return_value = away_s
        with broker_without_server(), pytest.raises(BrokerError):
            yard_state()
        for clock.return_value in back_s:
            told.append(yard_state().returned_s)

    assert told == [0.0, 7.0, None, 0.0, None]


def test_time_for_reports_begins_once_a_full_server_has_room(clock, monkeypatch):
    server = Mock(side_effect=[ServerState(refusal="full"), *[ServerState()] * 2])
    monkeypatch.setattr(queries, "read_broker_state", server)
    yard_state()
    told = [yard_state().returned_s for clock.return_value in (20.0, 25.0)]

    assert told == [0.0, 5.0]


@pytest.mark.parametrize(
    ("state", "fact"), [("full", "accepts no work: its memory is full"), ("evicting", "allkeys-lru")]
)
def test_broker_that_accepts_or_keeps_no_work_is_not_ready_and_says_why(state, fact, request):
    request.getfixturevalue(state)
    answer = Client().get("/readyz")

    broker = answer.json()["dependencies"]["broker"]
    assert (answer.status_code, broker) == (503, {"ok": False, "fact": broker["fact"]})
    assert fact in broker["fact"]


def test_broker_that_misses_keys_is_not_ready_until_accepted(facilities, valkey):
    valkey.sadd(facilities.records.keys.generations_missed(), "0123")

    missed = Client().get("/readyz")
    said = output_of("broker", "accept")
    accepted = Client().get("/readyz")

    assert missed.status_code == 503
    assert "emptied" in missed.json()["dependencies"]["broker"]["fact"]
    assert "accepted" in said
    assert accepted.status_code == 200


def test_command_says_what_is_wrong_and_what_to_do(evicting, facilities, valkey):
    code, said = end_of("broker")

    assert code == 1
    assert "error: maxmemory-policy is 'allkeys-lru'" in said
    assert "CONFIG SET maxmemory-policy noeviction" in said


def test_refused_request_is_logged_with_the_servers_words(full, caplog, monkeypatch):
    monkeypatch.setattr(dramatiq.get_broker().postpone, "keeps_rows", False)  # the outbox would accept it
    with caplog.at_level(logging.WARNING, "switchyard.api.exception_handlers"):
        answer = Caller().post("/emails", {"to": "ada@example.com", "template": "password_reset"})

    assert answer.status_code == 503
    assert "used memory > 'maxmemory'" in caplog.text


def test_queues_of_a_hung_broker_are_refused_in_time(facilities, monkeypatch):
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
