"""A call, and a PostgreSQL that stands still, has a time limit."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest
from django.db import OperationalError
from django.db.utils import ConnectionHandler
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from switchyard.frame import silent_database
from switchyard.frame.silent_database import SilentDatabase
from switchyard.operations import timeouts
from switchyard.operations.timeouts import NoAnswer, TimedCall, answers_within
from tests.chaos.postgres import PostgresUnderTest
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
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
