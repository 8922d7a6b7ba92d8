"""Liveness, readiness and the server's state in pages, commands and API; a call and a database have a time limit."""

import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any
from unittest.mock import Mock

import dramatiq
import pytest
import redis
from django.conf import settings
from django.db import OperationalError
from django.db import connection as project_connection
from django.db.utils import ConnectionHandler
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.pool_reports import PoolReport, PoolReports
from switchyard.frame import silent_database
from switchyard.frame.silent_database import SilentDatabase
from switchyard.operations import api, queries, timeouts, views
from switchyard.operations.findings import facts as doctor_facts
from switchyard.operations.queries import YardState, yard_state
from switchyard.operations.supervisors import ServerState, read_server_state
from switchyard.operations.timeouts import NoAnswer, TimedCall, answers_within
from switchyard.wiring import build_yard
from tests.chaos.postgres import PostgresUnderTest
from tests.factories.brokers import broker_without_server, the_global_broker
from tests.factories.brokers import full as full_server
from tests.factories.callers import Caller
from tests.factories.commands import end_of, output_of
from tests.waiting import wait_for

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
    name: Any = project_connection.settings_dict["NAME"]
    monkeypatch.setitem(project_connection.settings_dict, "NAME", "/nowhere/canary")
    try:
        answer = Client().get("/readyz")
    finally:
        monkeypatch.setitem(project_connection.settings_dict, "NAME", name)

    assert answer.status_code == 503
    assert answer.json()["dependencies"]["database"] == {"ok": False, "fact": "OperationalError"}
    assert "canary" not in answer.content.decode()


def test_a_database_without_tables_is_not_ready(facilities):
    with project_connection.cursor() as cursor:
        cursor.execute("ALTER TABLE switchyard_dead_letters_deadletter RENAME TO moved_away")
    try:
        answer = Client().get("/readyz")
    finally:
        with project_connection.cursor() as cursor:
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
    assert [yard_state().returned_s for clock.return_value in (20.0, 25.0)] == [0.0, 5.0]


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


LIMIT_S = 0.4


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresUnderTest]:
    """A PostgreSQL with nothing in it."""
    with PostgresUnderTest() as server:
        yield server


@pytest.fixture
def connection(postgres: PostgresUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    where = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "yard", "HOST": "127.0.0.1"}
    options = {"PORT": str(postgres.port), "OPTIONS": {"connect_timeout": 60}}
    connection = ConnectionHandler({"default": {**where, **options}})["default"]
    connection.inc_thread_sharing()
    monkeypatch.setattr(timeouts, "connection", connection)
    yield connection
    connection.close()


def ask(connection: Any, statement: str = "SELECT 42") -> int:
    with answers_within(LIMIT_S), connection.cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.fetchone()[0])


def refused_after(connection: Any, statement: str = "SELECT 42") -> float:
    began_s = time.monotonic()
    with pytest.raises(OperationalError, match=r"database: no answer within 0\.4 s"):
        ask(connection, statement)
    return time.monotonic() - began_s


def test_a_statement_to_a_postgres_that_stands_still_ends(connection, postgres):
    connection.ensure_connection()

    with postgres.standing_still():
        statement_s = refused_after(connection)
        assert connection.connection is None
        opening_s = refused_after(connection)

    assert min(statement_s, opening_s) >= LIMIT_S
    wait_for(lambda: timeouts._OPENING._pending is None)
    assert ask(connection) == 42


def test_a_postgres_that_accepts_no_connection_is_given_up(connection, postgres):
    postgres.signal(signal.SIGSTOP)  # the one process that accepts them
    try:
        assert refused_after(connection) >= LIMIT_S
    finally:
        postgres.signal(signal.SIGCONT)
        wait_for(lambda: timeouts._OPENING._pending is None)


def test_a_slow_statement_of_postgres_ends_and_the_next_one_has_a_new_connection(connection):
    refused_after(connection, "SELECT 42 FROM pg_sleep(600)")

    assert ask(connection) == 42
    assert timeouts._LIMIT.get() is None


@pytest.fixture
def middleware(connection: Any, monkeypatch: pytest.MonkeyPatch) -> SilentDatabase:
    """The middleware of pages before a view that asks that PostgreSQL."""
    monkeypatch.setattr(silent_database, "connection", connection)
    monkeypatch.setattr(silent_database, "READ_S", LIMIT_S)

    def view(request: HttpRequest) -> HttpResponse:
        try:
            with connection.cursor() as cursor:
                cursor.execute(request.GET["ask"])
                return HttpResponse(str(cursor.fetchone()[0]))
        except Exception as error:  # as Django's handler does
            found = made.process_exception(request, error)
            if found is None:
                raise
            return found

    made = SilentDatabase(view)
    return made


def test_a_page_of_a_postgres_that_stands_still_names_it_in_time(middleware, connection, postgres):
    ask_page = RequestFactory().get("/admin/operations/", {"ask": "SELECT 42"})
    before: Any = middleware(ask_page)

    with postgres.standing_still():
        began_s = time.monotonic()
        silent: Any = middleware(ask_page)
        took_s = time.monotonic() - began_s
    connection.close()  # as Django does at the end of a request whose connection failed
    after: Any = middleware(ask_page)

    assert (before.status_code, before.content) == (after.status_code, after.content) == (200, b"42")
    assert silent.status_code == 503 and silent["Retry-After"] == "10"
    assert "The database does not answer" in silent.content.decode()
    assert took_s >= LIMIT_S


def test_answer_and_error_come_through():
    def fail() -> None:
        raise LookupError("gone")

    assert TimedCall("it", lambda: 7).result(30) == 7
    with pytest.raises(LookupError, match="gone"):
        TimedCall("it", fail).result(30)


def test_question_that_hangs_ends_in_time_and_holds_one_thread():
    release, asked = threading.Event(), []

    def hang() -> str:
        asked.append(threading.get_ident())
        release.wait(60)
        return "late"

    question = TimedCall("broker", hang)
    for _ in range(5):
        with pytest.raises(NoAnswer, match=r"broker: no answer within 0\.01 s"):
            question.result(0.01)
    assert len(asked) == 1

    release.set()
    wait_for(lambda: question._pending is None)
    assert question.result(30) == "late"
    assert len(asked) == 2


def test_an_answer_that_came_too_late_is_handed_to_one_that_takes_it():
    release, asked = threading.Event(), []

    def hang() -> int:
        asked.append(1)
        release.wait(60)
        return len(asked)

    question = TimedCall("broker", hang)
    with pytest.raises(NoAnswer):
        question.result(0.01)
    release.set()
    wait_for(lambda: question._pending is None)

    assert (question.result(30, late_s=60), len(asked)) == (1, 1)
    assert (question.result(30, late_s=60), len(asked)) == (2, 2)  # in time, and so not kept
    assert (question.result(30, late_s=60), len(asked)) == (3, 3)


def test_callers_at_the_same_time_share_one_answer(monkeypatch):
    asked, waiting, release = [], [], threading.Event()

    def ask() -> int:
        asked.append(1)
        release.wait(60)
        return len(asked)

    def wait(*arguments: Any) -> Any:
        waiting.append(1)  # this caller has its call
        return futures.wait(*arguments)

    monkeypatch.setattr(timeouts, "wait", wait)
    question = timeouts.TimedCall("it", ask)

    with futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(question.result, 30) for _ in range(4)]
        wait_for(lambda: len(waiting) == 4)
        release.set()

    assert [answer.result() for answer in answers] == [1, 1, 1, 1]
    assert len(asked) == 1
