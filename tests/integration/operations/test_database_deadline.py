"""A PostgreSQL that stands still has a time limit."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError
from django.db.utils import ConnectionHandler

from apps.platform.operations import database_deadline
from apps.platform.operations.database_deadline import answers_within
from tests.chaos.postgres import PostgresUnderTest
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
LIMIT_S = 0.4
LONGEST_S = 4.0  # on a busy machine


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresUnderTest]:
    """A PostgreSQL with nothing in it."""
    with PostgresUnderTest() as server:
        yield server


@pytest.fixture
def connection(postgres: PostgresUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The database is that PostgreSQL."""
    where = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "yard", "HOST": "127.0.0.1"}
    options = {"PORT": str(postgres.port), "OPTIONS": {"connect_timeout": 5}}
    connection = ConnectionHandler({"default": {**where, **options}})["default"]
    connection.inc_thread_sharing()
    monkeypatch.setattr(database_deadline, "connection", connection)
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

    assert LIMIT_S <= statement_s < LONGEST_S and LIMIT_S <= opening_s < LONGEST_S
    wait_for(lambda: database_deadline._OPENING._pending is None)
    assert ask(connection) == 42


def test_a_postgres_that_accepts_no_connection_is_given_up(connection: Any, postgres: PostgresUnderTest) -> None:
    postgres.signal(signal.SIGSTOP)  # the one process that accepts them
    try:
        assert LIMIT_S <= refused_after(connection) < LONGEST_S
    finally:
        postgres.signal(signal.SIGCONT)
        wait_for(lambda: database_deadline._OPENING._pending is None)


def test_a_slow_statement_of_postgres_ends_and_the_next_one_has_a_new_connection(connection: Any) -> None:
    assert refused_after(connection, "SELECT 42 FROM pg_sleep(60)") < LONGEST_S

    assert ask(connection) == 42
    assert "wait" not in vars(connection.connection)


def test_errors_of_postgres_pass_and_leave_the_connection_open(connection: Any) -> None:
    with pytest.raises(Exception, match="division by zero"):
        ask(connection, "SELECT 1 / 0")

    assert connection.connection is not None
    assert ask(connection) == 42
