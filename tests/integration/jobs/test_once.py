"""Concurrent callers with one key: one runs the effect, the others wait for it. On SQLite and on PostgreSQL."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.utils import ConnectionHandler

from switchyard.jobs.once import delete_old_keys, once
from switchyard.schedules.runner import maintenance_tasks
from tests.chaos.postgres import PostgresUnderTest
from tests.waiting import wait_for

THREADS = 8
KEYS = 10
POSTGRES = "postgres"


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL for all tests of the module."""
    with PostgresUnderTest() as server:
        yield server


@pytest.fixture
def postgres_alias(server, django_db_setup, django_db_blocker):
    """Alias of a PostgreSQL with the tables of jobs. With ``transactional_db`` no connection to it could be opened."""
    address = {"HOST": "127.0.0.1", "PORT": server.port, "USER": "yard", "NAME": "postgres"}
    handler = ConnectionHandler({"default": {"ENGINE": "django.db.backends.postgresql", **address}})
    connections.settings[POSTGRES] = handler.settings["default"]
    with django_db_blocker.unblock():
        call_command("migrate", "switchyard_jobs", database=POSTGRES, verbosity=0)
        yield POSTGRES
        connections[POSTGRES].close()
    del connections[POSTGRES], connections.settings[POSTGRES]


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.django_db(transaction=True)), "postgres"])
def alias(request):
    """Alias of a database with a table for effects."""
    alias = DEFAULT_DB_ALIAS if request.param == "sqlite" else request.getfixturevalue("postgres_alias")
    with connections[alias].cursor() as cursor:
        cursor.execute("CREATE TABLE effect (name VARCHAR(60))")
    yield alias
    with connections[alias].cursor() as cursor:
        cursor.execute("DROP TABLE effect")
        cursor.execute("DELETE FROM switchyard_jobs_doneonce")


@pytest.fixture
def do(alias):
    """Do something once in a thread of its own, and return whether this was the first: ``do("key", meanwhile)``."""

    def do(key: str, meanwhile: Callable[[], object] = lambda: None) -> bool:
        try:
            with once(key, using=alias) as first:
                if first:
                    with connections[alias].cursor() as cursor:
                        cursor.execute("INSERT INTO effect VALUES (%s)", [key])
                meanwhile()
            return first
        finally:
            connections[alias].close()

    return do


def effects(alias: str) -> list[str]:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT name FROM effect ORDER BY name")
        return [name for (name,) in cursor.fetchall()]


def test_of_many_at_once_one_is_first(alias, do):
    start = threading.Barrier(THREADS)

    def do_all() -> list[bool]:
        start.wait(30)
        return [do(f"key-{number}") for number in range(KEYS)]

    with ThreadPoolExecutor(THREADS) as pool:
        answers = [future.result(60) for future in [pool.submit(do_all) for _ in range(THREADS)]]

    assert [sum(firsts) for firsts in zip(*answers, strict=True)] == [1] * KEYS
    assert effects(alias) == [f"key-{number}" for number in range(KEYS)]


@pytest.mark.parametrize("fails", [False, True], ids=["commits", "rolls-back"])
def test_the_second_waits_for_the_end_of_the_first(alias, do, fails):
    inside, go_on, tried = threading.Event(), threading.Event(), threading.Event()

    def stay() -> None:
        inside.set()
        assert go_on.wait(30)
        if fails:
            raise RuntimeError

    def tell(execute: Callable[..., Any], *statement: Any) -> Any:
        tried.set()
        return execute(*statement)

    def do_second() -> bool:
        with connections[alias].execute_wrapper(tell):
            return do("key")

    with ThreadPoolExecutor(2) as pool:
        first: Future[bool] = pool.submit(do, "key", stay)
        assert inside.wait(30)
        second: Future[bool] = pool.submit(do_second)
        assert tried.wait(30)
        if alias == POSTGRES:  # it tells; on SQLite the second one has not got past its first statement
            wait_for(lambda: blocked(alias), what="a statement that waits for a lock")
        assert not second.done()
        go_on.set()
        answers = (None if fails else first.result(30), second.result(30))
        assert (first.exception(10) is not None) == fails

    assert answers == ((None, True) if fails else (True, False))
    assert effects(alias) == ["key"]


def blocked(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return int(cursor.fetchone()[0])


def test_the_scheduler_forgets_what_is_old():
    [task] = [task for task in maintenance_tasks() if task.name == "done once"]

    assert task.run is delete_old_keys
