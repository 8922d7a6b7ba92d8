"""The figures and the examples of the page about database connections: own threads, an own middleware."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import dramatiq
import pytest
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from switchyard.broker.interface import Facilities
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit
from tests.conftest import RunWorker
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for

PAGE = read("docs/how-to/keep-database-connections.md")
THREADS, MIDDLEWARE = code_blocks(PAGE, "python")


def query() -> int:
    """Ask the database something."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 42")
        return int(cursor.fetchone()[0])


class Rows:
    """A model whose rows are refreshed and made with a query."""

    def __init__(self) -> None:
        self.objects = self
        self.refreshed: list[tuple[int, str]] = []
        self.created: list[dict[str, str]] = []
        self._met = threading.Barrier(4)

    def get(self, pk: int) -> Any:
        def refresh() -> None:
            query()
            self._met.wait(30)  # all four threads have theirs open
            self.refreshed.append((pk, threading.current_thread().name))

        return SimpleNamespace(refresh=refresh)

    def create(self, **fields: str) -> None:
        query()
        self.created.append(fields)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Stand-in for the page's models."""
    rows = Rows()
    for app, model in (("catalogue", "Price"), ("audit", "Failure")):
        models = ModuleType(f"apps.{app}.models")
        setattr(models, model, rows)
        monkeypatch.setitem(sys.modules, f"apps.{app}", ModuleType(f"apps.{app}"))
        monkeypatch.setitem(sys.modules, models.__name__, models)
    return rows


@pytest.fixture
def opened() -> Iterator[list[tuple[str, BaseDatabaseWrapper]]]:
    """Thread and connection of all that are opened."""
    found: list[tuple[str, BaseDatabaseWrapper]] = []

    def note(connection: BaseDatabaseWrapper, **signal: Any) -> None:
        found.append((threading.current_thread().name, connection))

    connection_created.connect(note)
    yield found
    connection_created.disconnect(note)


def names_of(code: str) -> dict[str, Any]:
    """Run a block of the page and return its names."""
    names: dict[str, Any] = {"__name__": "shown"}
    exec(compile(code, "keep-database-connections.md", "exec"), names)
    return names


@pytest.fixture
def actors() -> Iterator[None]:
    """Forget the actors of the test."""
    before = dict(dramatiq.get_broker().actors)
    yield
    dramatiq.get_broker().actors = before


@pytest.mark.usefixtures("transactional_db", "actors")
def test_the_pages_threads_leave_no_connection_open(
    facilities: Facilities, run_worker: RunWorker, rows: Rows, opened: list[tuple[str, BaseDatabaseWrapper]]
) -> None:
    actor = names_of(THREADS)["refresh_prices"]

    with run_worker("default"):
        job = submit(actor, kwargs={"price_ids": list(range(8))})
        ended = wait_for(lambda: (found := find_job(job)) and found.ended and found)
        own = [(name, made) for name, made in opened if name.startswith("ThreadPoolExecutor")]
        still_open = [name for name, made in own if made.connection is not None]

    assert ended.state == "succeeded"
    assert sorted(pk for pk, _ in rows.refreshed) == list(range(8))
    assert {name for name, _ in own} == {name for _, name in rows.refreshed}
    assert len({name for name, _ in own}) == 4
    assert still_open == []


@pytest.mark.usefixtures("transactional_db", "actors")
def test_the_pages_middleware_writes_its_row_after_a_task_that_lost_its_connection(
    facilities: Facilities, run_worker: RunWorker, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_usable(self: BaseDatabaseWrapper) -> bool:
        """Ask, as Django does on PostgreSQL. On SQLite, which cannot be cut, it says yes."""
        try:
            self.connection.execute("SELECT 1")
        except self.Database.Error:
            return False
        return True

    monkeypatch.setattr(type(connections["default"]), "is_usable", is_usable)

    def loses_its_connection() -> None:
        query()
        connection.connection.close()
        query()

    actor = dramatiq.actor(loses_its_connection, queue_name="default", max_retries=0)
    broker = dramatiq.get_broker()
    before = list(broker.middleware)
    broker.add_middleware(names_of(MIDDLEWARE)["NoteFailures"]())
    try:
        with run_worker("default"):
            job = submit(actor, kwargs={})
            wait_for(lambda: (found := find_job(job)) and found.ended)
    finally:
        broker.middleware = before

    error = "OperationalError" if connection.vendor == "postgresql" else "ProgrammingError"
    assert rows.created == [{"job_id": job, "error": error}]
