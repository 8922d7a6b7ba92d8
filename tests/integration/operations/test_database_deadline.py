"""A PostgreSQL that stands still has a time limit."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError
from django.db.utils import ConnectionHandler
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from switchyard.frame import silent_database
from switchyard.frame.silent_database import SilentDatabase
from switchyard.operations import timeouts
from switchyard.operations.timeouts import answers_within
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


def test_a_statement_to_a_postgres_that_stands_still_ends(connection: Any, postgres: PostgresUnderTest) -> None:
    connection.ensure_connection()

    with postgres.standing_still():
        statement_s = refused_after(connection)
        assert connection.connection is None
        opening_s = refused_after(connection)

    assert min(statement_s, opening_s) >= LIMIT_S
    wait_for(lambda: timeouts._OPENING._pending is None)
    assert ask(connection) == 42


def test_a_postgres_that_accepts_no_connection_is_given_up(connection: Any, postgres: PostgresUnderTest) -> None:
    postgres.signal(signal.SIGSTOP)  # the one process that accepts them
    try:
        assert refused_after(connection) >= LIMIT_S
    finally:
        postgres.signal(signal.SIGCONT)
        wait_for(lambda: timeouts._OPENING._pending is None)


def test_a_slow_statement_of_postgres_ends_and_the_next_one_has_a_new_connection(connection: Any) -> None:
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


def test_a_page_of_a_postgres_that_stands_still_names_it_in_time(
    middleware: SilentDatabase, connection: Any, postgres: PostgresUnderTest
) -> None:
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
