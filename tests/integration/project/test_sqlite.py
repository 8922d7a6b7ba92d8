"""A writer that waits for SQLite's write lock acquires it soon after its release, and delays no other thread."""

import contextlib
import gc
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path

import pytest
from django.conf import settings
from django.db import OperationalError, connections
from django.db.utils import ConnectionHandler

from project.sqlite.base import DatabaseWrapper
from tests.waiting import wait_for

TIMEOUT_S = 4.0
SOON_S = 1.0  # where nothing frees the lock
WRITERS = 8
WRITES = 25


def begin(waiting: DatabaseWrapper) -> None:
    waiting.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    waiting.rollback()
    waiting.set_autocommit(True)


def write(waiting: DatabaseWrapper) -> None:
    with waiting.cursor() as cursor:
        cursor.execute("UPDATE counted SET number = number + 1")


def connected(file: Path, timeout_s: float = TIMEOUT_S) -> DatabaseWrapper:
    options = {**settings.DATABASES["default"]["OPTIONS"], "timeout": timeout_s}
    engine = settings.DATABASES["default"]["ENGINE"]
    connection = ConnectionHandler({"default": {"ENGINE": engine, "NAME": str(file), "OPTIONS": options}})["default"]
    connection.inc_thread_sharing()
    connection.ensure_connection()
    return connection


pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]
# How much later than its timeout a statement may be refused.
late = pytest.mark.parametrize("late_s", [inf, pytest.param(2.0, marks=pytest.mark.long)])
both = pytest.mark.parametrize("statement", [begin, write])


@pytest.fixture
def connect(tmp_path):
    """Open connections of ours to a database of this test's own, whose writers wait four seconds."""
    opened: list[DatabaseWrapper] = []

    def connect(timeout_s: float = TIMEOUT_S) -> DatabaseWrapper:
        opened.append(connected(tmp_path / "db", timeout_s))
        return opened[-1]

    with connect().cursor() as cursor:
        cursor.execute("CREATE TABLE counted (number INTEGER)")
        cursor.execute("INSERT INTO counted VALUES (0)")
    yield connect
    for connection in opened:
        connection.close()


@contextlib.contextmanager
def locked(file: Path) -> Iterator[sqlite3.Connection]:
    """Another writer, which holds the lock of a file."""
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    yield other
    other.close()


@pytest.fixture
def holder(connect, tmp_path):
    with locked(tmp_path / "db") as other:
        yield other


@pytest.fixture
def maker(tmp_path):
    """A connection that is about to make a new file, as that of another process which sets the file's journal."""
    with locked(tmp_path / "new") as other:
        yield other


def test_the_yards_database_waits_like_that():
    with connections["default"].cursor() as cursor:
        assert cursor.execute("PRAGMA busy_timeout").fetchone() == (0,)
        assert cursor.cursor.timeout_s == settings.DATABASES["default"]["OPTIONS"]["timeout"]


def test_a_connection_to_a_new_file_waits_for_the_one_that_makes_it(maker, tmp_path):
    timer = threading.Timer(0.2, maker.execute, ["COMMIT"])
    timer.start()

    connection = connected(tmp_path / "new")  # SQLite itself refuses it at once, whatever its timeout

    timer.join()
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@late
def test_a_connection_to_a_file_that_is_never_made_is_refused_after_the_timeout(maker, tmp_path, late_s):
    started = time.monotonic()
    with pytest.raises(OperationalError, match="database is locked"):
        connected(tmp_path / "new", SOON_S)

    assert SOON_S <= time.monotonic() - started < SOON_S + late_s


@both
def test_a_waiter_goes_on_soon_after_the_lock_is_free(statement, connect, holder):
    waiting = connect()
    late_s: list[float] = []
    freed: list[float] = []

    def free() -> None:
        holder.execute("COMMIT")
        freed.append(time.monotonic())

    # Again on a machine that is busy: SQLite itself would look after 328 and again after 428 ms, every time.
    while not late_s or (min(late_s) >= 0.04 and len(late_s) < 20):
        timer = threading.Timer(0.34, free)
        timer.start()
        statement(waiting)
        went_on = time.monotonic()
        timer.join()
        late_s.append(went_on - freed[-1])
        holder.execute("BEGIN IMMEDIATE")

    assert min(late_s) < 0.04


@late
@both
def test_a_lock_that_is_never_free_is_an_error_after_the_timeout(statement, connect, holder, late_s):
    waiting, started = connect(SOON_S), time.monotonic()
    with pytest.raises(OperationalError, match="database is locked"):
        statement(waiting)

    assert SOON_S <= time.monotonic() - started < SOON_S + late_s


def test_other_errors_are_raised_at_once(connect):
    with connect().cursor() as cursor, pytest.raises(OperationalError, match="no such table"):
        cursor.execute("SELECT * FROM missing")


@pytest.fixture
def small_heap():
    """Leave what other tests made out of collections: with it one takes a second on a busy machine."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@both
@pytest.mark.usefixtures("small_heap")
def test_the_lock_holder_may_collect_a_waiters_garbage(statement, connect, holder):
    waiting = connect()
    cycle: list[object] = [waiting.connection.execute("SELECT 1 UNION SELECT 2")]
    cycle.append(cycle)
    gc.collect()  # so that what follows finds the cycle only
    tried: list[str] = []
    waiting.connection.set_trace_callback(tried.append)
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(statement, waiting)
        wait_for(lambda: tried)

        del cycle
        gc.collect()
        waits = not waiter.done()
        holder.execute("COMMIT")

        waiter.result(30)
    assert waits, "the collection waited for the lock, until the waiter gave up"


def test_every_writer_of_a_process_gets_its_turn(connect):
    connections = [connect() for _ in range(WRITERS)]

    def write_often(waiting: DatabaseWrapper) -> None:
        for _ in range(WRITES):
            write(waiting)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write_often, connections))

    with connections[0].cursor() as cursor:
        assert cursor.execute("SELECT number FROM counted").fetchone() == (WRITERS * WRITES,)


@pytest.mark.parametrize(("longest_s", "processor_s"), [(3.0, 0.4), pytest.param(0.5, 0.25, marks=pytest.mark.long)])
def test_a_greenlet_that_waits_lets_the_others_of_its_process_go_on(tmp_path, longest_s, processor_s):
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.project.greenlets"],
        env={**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'db'}"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    seen = json.loads(done.stdout)
    assert seen["missed"] == 0
    assert seen["longest_pause_s"] < longest_s
    assert seen["processor_s"] < processor_s
