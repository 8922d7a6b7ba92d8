"""Who waits for SQLite's writer's lock gets it soon after it is free, and is told when it never is."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import OperationalError
from django.db.utils import ConnectionHandler

from project.sqlite.base import DatabaseWrapper

TIMEOUT_S = 1.0

pytestmark = pytest.mark.django_db


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[DatabaseWrapper]:
    """A connection of ours to a database of its own, whose writers wait a second."""
    options = {"transaction_mode": "IMMEDIATE", "timeout": TIMEOUT_S, "init_command": "PRAGMA journal_mode=WAL"}
    settings = {"ENGINE": "project.sqlite", "NAME": str(tmp_path / "db"), "OPTIONS": options}
    connection = ConnectionHandler({"default": settings})["default"]
    assert isinstance(connection, DatabaseWrapper)
    connection.ensure_connection()
    yield connection
    connection.close()


@pytest.fixture
def holder(waiting: DatabaseWrapper, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another writer, which holds the lock."""
    with sqlite3.connect(tmp_path / "db", isolation_level=None, check_same_thread=False) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other
    other.close()


def test_a_transaction_begins_soon_after_the_lock_is_free(waiting: DatabaseWrapper, holder: sqlite3.Connection) -> None:
    freed: list[float] = []

    def free() -> None:
        holder.execute("COMMIT")
        freed.append(time.monotonic())

    timer = threading.Timer(0.4, free)
    timer.start()
    waiting.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    began = time.monotonic()
    waiting.rollback()
    timer.join()

    # SQLite itself would look every 100 ms by now.
    assert 0 <= began - freed[0] < 0.05


def test_a_lock_that_is_never_free_is_an_error_after_the_timeout(
    waiting: DatabaseWrapper, holder: sqlite3.Connection
) -> None:
    started = time.monotonic()
    with pytest.raises(OperationalError, match="locked"):
        waiting.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)

    assert TIMEOUT_S <= time.monotonic() - started < TIMEOUT_S + 1


def test_single_statements_wait_as_long_as_before(waiting: DatabaseWrapper, holder: sqlite3.Connection) -> None:
    holder.execute("COMMIT")
    waiting.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    waiting.rollback()

    with waiting.cursor() as cursor:
        (timeout_ms,) = cursor.execute("PRAGMA busy_timeout").fetchone()

    assert timeout_ms == TIMEOUT_S * 1000
