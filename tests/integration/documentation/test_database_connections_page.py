"""The example of the page about database connections: own threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from switchyard.broker.interface import Facilities
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit
from tests.conftest import RunWorker
from tests.integration.documentation.shown import run_block, stand_in
from tests.waiting import wait_for


class Rows:
    """A model whose rows are refreshed in the database."""

    def __init__(self) -> None:
        self.objects = self
        self.refreshed: list[tuple[int, str]] = []
        self._met = threading.Barrier(4)

    def get(self, pk: int) -> Any:
        def refresh() -> None:
            connection.ensure_connection()
            self._met.wait(30)  # all four threads have theirs open
            self.refreshed.append((pk, threading.current_thread().name))

        return SimpleNamespace(refresh=refresh)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Stand-in for the page's model."""
    rows = Rows()
    stand_in(monkeypatch, "apps.catalogue.models", Price=rows)
    return rows


@pytest.fixture
def opened() -> Iterator[list[tuple[str, BaseDatabaseWrapper]]]:
    found: list[tuple[str, BaseDatabaseWrapper]] = []

    def note(connection: BaseDatabaseWrapper, **signal: Any) -> None:
        found.append((threading.current_thread().name, connection))

    connection_created.connect(note)
    yield found
    connection_created.disconnect(note)


@pytest.mark.usefixtures("transactional_db")
def test_the_pages_threads_leave_no_connection_open(
    facilities: Facilities, run_worker: RunWorker, rows: Rows, opened: list[tuple[str, BaseDatabaseWrapper]]
) -> None:
    actor = run_block("keep-database-connections")["refresh_prices"]

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
