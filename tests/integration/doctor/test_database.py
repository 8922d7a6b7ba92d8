"""The doctor finds faults of the database on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.db.utils import ConnectionHandler

from switchyard.operations.findings import database
from switchyard.operations.findings.examine import run_checks
from switchyard.operations.findings.finding import Finding, FindingGroup
from tests.chaos.postgres import PostgresUnderTest
from tests.integration.doctor.conftest import of
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def look(deadline_s: float = 20.0) -> list[Finding]:
    return run_checks(FindingGroup("database"), lambda: [*database.look(), *database.look_at_migrations()], deadline_s)


def test_a_migrated_database_is_told_with_its_figures() -> None:
    findings = look()

    assert "ok" in {finding.code for finding in findings} <= {"ok", "connections"}
    assert len(findings) == 3


@pytest.mark.sqlite
def test_a_file_that_is_not_there_or_empty_is_an_error_with_the_first_migration_and_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "other.sqlite3"
    monkeypatch.setitem(connection.settings_dict, "NAME", str(path))
    assert list(of(look(), "error")) == ["unmigrated"]
    assert not path.exists()

    path.touch()

    found = of(look(), "error")["unmigrated"]
    assert "migrations are not applied" in found.seen
    assert found.next == "manage.py migrate"


@pytest.mark.sqlite
def test_a_writers_lock_that_is_never_free_is_an_error() -> None:
    with contextlib.closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")

        found = of(look(), "error")["locked"]

    assert found.seen.startswith(f"the database is locked, by pid {os.getpid()} (")
    assert f"kill -TERM {os.getpid()}" in found.next


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresUnderTest]:
    with PostgresUnderTest(connections=100) as server:
        yield server


@pytest.fixture
def on_postgres(postgres: PostgresUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The database is PostgreSQL; ``on_postgres(USER=…)`` makes it wrong."""
    opened: list[Any] = []

    def point(**options: Any) -> None:
        where = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "yard", "HOST": "127.0.0.1"}
        handler = ConnectionHandler({"default": {**where, "PORT": str(postgres.port), **options}})
        handler["default"].inc_thread_sharing()
        opened.append(handler["default"])
        monkeypatch.setattr(database, "connection", handler["default"])

    point()
    yield point
    for one in opened:
        one.close()


def test_postgres_without_room_for_all_pools_is_a_warning(on_postgres: Any) -> None:
    found = of(look(), "warning")["connections"]

    assert "all processes may open" in found.seen and "for isolated runs" in found.seen
    assert "max_connections" in found.next


def test_postgres_whose_connections_are_used_up_is_a_warning(on_postgres: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "NEARLY_ALL", 0.001)

    assert "pg_stat_activity" in of(look(), "warning")["connections"].next


def test_connections_of_another_program_are_told_from_ours_before_the_limit_is_to_be_raised(
    on_postgres: Any, postgres: PostgresUnderTest
) -> None:
    on_postgres(OPTIONS={"application_name": "switchyard"})
    with contextlib.ExitStack() as others:
        for _ in range(90):
            others.enter_context(psycopg.connect(postgres.url, application_name="importer"))
        counted = of(look(), "warning")["connections"]
        database.connection.close()
        with pytest.raises(psycopg.OperationalError):
            for _ in range(20):
                others.enter_context(psycopg.connect(postgres.url, application_name="importer"))
        full = of(look(), "error")["refused"]

    assert ": 1 is ours, 90 are not (most of importer); all processes may open" in counted.seen
    assert "(max_connections); 1 is ours, 90 are not (most of importer), counted " in full.seen
    assert full.next.startswith("As a superuser, find whose they are, and end those that should not be: psql -c")
    assert "Raise max_connections" in full.next


def test_a_query_that_waits_for_a_lock_of_postgres_is_an_error_that_names_who_holds_it(
    on_postgres: Any, postgres: PostgresUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BLOCKED_S", 0)
    postgres.execute("CREATE TABLE IF NOT EXISTS wanted (id INTEGER)")
    with psycopg.connect(postgres.url) as holder:
        holder.execute("LOCK TABLE wanted IN ACCESS EXCLUSIVE MODE")
        pid = holder.info.backend_pid
        waiter = threading.Thread(target=postgres.execute, args=("SELECT * FROM wanted",))
        waiter.start()

        found = wait_for(lambda: of(look(), "error").get("locked"))
        holder.rollback()
        waiter.join(30)

    assert found.next == f'psql -c "SELECT pg_terminate_backend({pid})"'


def test_a_transaction_that_is_left_open_in_postgres_is_a_warning(
    on_postgres: Any, postgres: PostgresUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "IDLE_S", 0)
    with psycopg.connect(postgres.url) as holder:
        holder.execute("SELECT 1")
        pid = holder.info.backend_pid

        found = of(look(), "warning")["idle"]

    assert f"(pid {pid})" in found.seen


def test_a_postgres_that_takes_no_writes_is_an_error(on_postgres: Any) -> None:
    on_postgres(OPTIONS={"options": "-c default_transaction_read_only=on"})

    found = of(look(), "error")["locked"]

    assert found.seen == "the database takes no writes: default_transaction_read_only is on"
    assert "the primary" in found.next


def test_postgres_that_is_away_is_an_error_and_no_traceback(on_postgres: Any) -> None:
    on_postgres(PORT="1")

    [found] = look()

    assert (found.code, found.severity) == ("away", "error")
    assert found.seen == "the database does not answer (connection refused, nothing listens there)"


def test_postgres_that_stands_still_is_an_error_in_time(on_postgres: Any, postgres: PostgresUnderTest) -> None:
    postgres.signal(signal.SIGSTOP)
    try:
        [found] = look(2.0)
    finally:
        postgres.signal(signal.SIGCONT)
        wait_for(lambda: not any(thread.name == "call doctor database" for thread in threading.enumerate()))

    assert (found.code, found.severity) == ("hangs", "error")
