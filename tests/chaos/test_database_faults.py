"""Pools of every kind lose no job while the database is unreachable, locked, or closes its connections."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from math import inf
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.chaos.database_yard.yard import KINDS, PLAIN
from tests.chaos.databases import SQLITE_TABLE, TABLE, DatabaseYard, environment, manage, sqlite_writer, steadily
from tests.chaos.ledger import Ledger
from tests.chaos.load import let_pass
from tests.chaos.postgres import PostgresUnderTest
from tests.chaos.test_server_faults import p99
from tests.waiting import wait_for

long = pytest.mark.long
READINESS = (
    "import json; from switchyard.operations.views import dependencies; "
    "print(json.dumps({name: each['ok'] for name, each in dependencies().items()}))"
)


@pytest.fixture(scope="module")
def postgres(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresUnderTest]:
    """A PostgreSQL with the platform's tables, for all tests of the module."""
    folder = tmp_path_factory.mktemp("migrating")
    with PostgresUnderTest() as server:
        ledger = Ledger(folder / "ledger")
        manage(environment(folder, ledger, valkey_url, server.url), "migrate", "--verbosity=0")
        ledger.close()
        server.execute(TABLE)
        yield server


@pytest.fixture
def yard_on(valkey: redis.Redis, valkey_url: str, ledger: Ledger, tmp_path: Path) -> Iterator[Any]:
    """Start real pools on a database: ``yard_on(url)``."""
    started: list[DatabaseYard] = []

    def start(database_url: str) -> DatabaseYard:
        yard = DatabaseYard(tmp_path, ledger, valkey_url, database_url)
        started.append(yard)
        yard.start()
        return yard

    yield start
    for yard in started:
        print(yard.log()[-4_000:])
        yard.stop()


@pytest.fixture
def postgres_yard(postgres: PostgresUnderTest, yard_on: Any) -> DatabaseYard:
    """Real pools on PostgreSQL."""
    return yard_on(postgres.url)


@pytest.fixture
def sqlite_path(tmp_path: Path, valkey_url: str, ledger: Ledger) -> Path:
    """An SQLite database with the platform's tables."""
    path = tmp_path / "db.sqlite3"
    manage(environment(tmp_path, ledger, valkey_url, f"sqlite:///{path}"), "migrate", "--verbosity=0")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(SQLITE_TABLE)
    return path


def accounted(yard: DatabaseYard) -> None:
    """Check that no job was lost, none was unexpected, and none became a dead letter."""
    found = yard.ledger.account()
    assert (found.lost, found.unexpected, yard.dead()) == ((), (), 0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("away_s", "every_s", "within_s"), [(4, 0.2, inf), pytest.param(60, 0.05, 10, marks=long)])
def test_postgres_that_is_away_costs_time_and_no_job(
    postgres: PostgresUnderTest, postgres_yard: DatabaseYard, away_s: float, every_s: float, within_s: float
) -> None:
    yard = postgres_yard
    yard.wait_for_completed(yard.send_rows(60, kinds=KINDS))
    before = {process.pid for process in yard.processes()}
    ready_before = readiness(yard)

    with steadily(lambda: yard.send_rows(1, kinds=KINDS)[0], every_s) as rows:
        with steadily(lambda: yard.send("plain_job", PLAIN), every_s) as plain:
            postgres.stop()
            unready = readiness(yard)
            away_since = time.monotonic()
            live = [yard.live()]
            while (left_s := away_since + away_s - time.monotonic()) > 0:
                let_pass(min(left_s, 5.0))
                live.append(yard.live())
            untouched = list(plain)
        held = list(rows)
        completed_before = len(yard.ledger.jobs("completed"))
        restarted = time.monotonic()
        postgres.start()
        wait_for(lambda: len(yard.ledger.jobs("completed")) > completed_before + len(plain) - len(untouched))
    yard.wait_for_completed(held)
    back_s = time.monotonic() - restarted
    yard.wait_until_drained()

    waits = yard.waits_ms(untouched)
    print(
        f"away {away_s} s: {len(held)} jobs with a database sent meanwhile, all completed {back_s:.1f} s after it was "
        f"back; {len(untouched)} without, started after {waits[len(waits) // 2]:.0f} ms (median), {waits[-1]:.0f} ms "
        f"(worst); attempts spent {yard.attempts_spent()}"
    )
    accounted(yard)
    assert set(untouched) <= set(yard.ledger.jobs("completed"))
    assert {process.pid for process in yard.processes()} == before, yard.log()
    assert [set(answers.values()) for answers in live] == [{200}] * len(live)
    assert (ready_before["database"], unready["database"], readiness(yard)["database"]) == (True, False, True)
    assert back_s <= within_s


@pytest.mark.timeout(300)
# A fetch that took a lock would wait for half of the time that it is held, at the median.
@pytest.mark.parametrize(("held_s", "median_ms", "within_s"), [(6, inf, inf), pytest.param(30, 250, 10, marks=long)])
@pytest.mark.parametrize("database", ["postgres", pytest.param("sqlite", marks=long)])
def test_a_locked_table_holds_up_nothing_but_who_wants_it(
    database: str, held_s: float, median_ms: float, within_s: float, request: pytest.FixtureRequest, yard_on: Any
) -> None:
    if database == "postgres":
        server = request.getfixturevalue("postgres")
        url, lock = server.url, lambda: locked_table(server)
    else:
        path = request.getfixturevalue("sqlite_path")
        url, lock = f"sqlite:///{path}", lambda: sqlite_writer(path)
    yard = yard_on(url)
    yard.wait_for_completed(yard.send_rows(60, kinds=KINDS))

    free = plain_waits(yard, held_s)
    with lock():
        rows = yard.send_rows(30, kinds=KINDS)
        wait_for(lambda: set(rows) & set(yard.ledger.jobs("started")))
        locked = plain_waits(yard, held_s)
        written = set(rows) & set(yard.ledger.jobs("completed"))
    freed = time.monotonic()
    yard.wait_for_completed(rows)
    back_s = time.monotonic() - freed
    yard.wait_until_drained()

    print(
        f"{database} locked {held_s} s: {len(free)} and {len(locked)} jobs without a database started after "
        f"{median(free):.1f} and {median(locked):.1f} ms (median), {p99(free):.1f} and {p99(locked):.1f} ms (p99); "
        f"those that waited for the lock completed {back_s:.2f} s after it was free; attempts spent "
        f"{yard.attempts_spent()}"
    )
    accounted(yard)
    assert written == set()
    assert median(locked) < median_ms
    assert back_s <= within_s
    if database == "postgres":
        assert server.execute("SELECT sum(deadlocks) FROM pg_stat_database") == [(0,)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds", [10, pytest.param(50, marks=long)])
@pytest.mark.long
def test_connections_that_postgres_cut_between_tasks_cost_no_attempt(
    postgres: PostgresUnderTest, postgres_yard: DatabaseYard, rounds: int
) -> None:
    yard, cut = postgres_yard, []
    for _ in range(rounds):
        jobs = yard.send_rows(90, kinds=KINDS) + [yard.send("async_row", "threads") for _ in range(10)]
        yard.wait_for_completed(jobs)
        yard.wait_until_drained()
        cut.append(postgres.cut_connections())

    print(f"{rounds * 100} tasks, {sum(cut)} connections cut between them; attempts spent {yard.attempts_spent()}")
    accounted(yard)
    assert min(cut) >= len(KINDS)
    assert yard.attempts_spent() == 0, yard.log()[-4_000:]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cuts", [4, pytest.param(100, marks=long)])
def test_connections_that_postgres_cut_in_the_act_fail_nobody_for_good(
    postgres: PostgresUnderTest, postgres_yard: DatabaseYard, cuts: int
) -> None:
    yard, cut = postgres_yard, 0
    with steadily(lambda: yard.send_rows(1, kinds=KINDS)[0], 0.005) as rows:
        for _ in range(cuts):
            before = len(rows)
            wait_for(lambda before=before: len(rows) > before + 50)
            cut += postgres.cut_connections()
    yard.wait_for_completed(rows)
    yard.wait_until_drained()

    print(f"{len(rows)} tasks, {cut} connections cut under load; attempts spent {yard.attempts_spent()}")
    accounted(yard)
    assert yard.attempts_spent() <= cut


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("query", ["", pytest.param("?pool=4", id="pooled", marks=long)])
@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=long)])
def test_postgres_that_is_killed_under_load_loses_no_job(
    kills: int, query: str, postgres: PostgresUnderTest, yard_on: Any
) -> None:
    yard = yard_on(postgres.url + query)
    yard.wait_for_completed(yard.send_rows(60, kinds=KINDS))
    waits_s = []
    with steadily(lambda: yard.send_rows(1, kinds=KINDS)[0], 0.01) as rows:
        for _ in range(kills):
            before = len(rows)
            wait_for(lambda before=before: len(rows) > before + 50)
            postgres.kill()
            sent = len(rows)
            wait_for(lambda sent=sent: len(rows) > sent + 20)
            postgres.start()
            started_s, completed = time.monotonic(), len(yard.ledger.jobs("completed"))
            wait_for(lambda completed=completed: len(yard.ledger.jobs("completed")) > completed)
            waits_s.append(time.monotonic() - started_s)
    yard.wait_for_completed(rows, 120)
    yard.wait_until_drained()

    written = {job for (job,) in postgres.execute("SELECT DISTINCT job FROM chaos_row")}
    print(
        f"{kills} kills, {len(rows)} tasks, the first completed {median(sorted(waits_s)):.1f} s (median), "
        f"{max(waits_s):.1f} s (worst) after each start; attempts spent {yard.attempts_spent()}"
    )
    accounted(yard)
    assert set(rows) <= written, "a committed row is gone"


@pytest.mark.long
def test_a_dead_letter_gets_its_row_over_a_connection_that_postgres_cut(
    postgres: PostgresUnderTest, postgres_yard: DatabaseYard
) -> None:
    job = postgres_yard.send("gives_up", "threads")
    noted = "SELECT job FROM chaos_row WHERE job LIKE %s"
    [(row,)] = wait_for(lambda: postgres.execute(noted, f"{job}:%"), what="its connection")

    postgres.execute("SELECT pg_terminate_backend(%s::int)", row.rpartition(":")[2])

    rows = "SELECT reason FROM switchyard_dead_letters_deadletter WHERE message_id = %s"
    assert wait_for(lambda: postgres.execute(rows, job), what="the dead letter's row") == [("permanent",)]
    assert "dead letter has no row yet" not in postgres_yard.log()


@pytest.mark.parametrize("query", ["", pytest.param("?pool=4", id="pooled", marks=long)])
def test_no_process_has_another_ones_connection_to_postgres(
    query: str, postgres: PostgresUnderTest, yard_on: Any
) -> None:
    yard = yard_on(postgres.url + query)
    postgres.execute("TRUNCATE chaos_row")
    fresh = connections_of(yard, postgres.port)
    yard.wait_for_completed(yard.send_rows(120, kinds=KINDS))

    used = connections_of(yard, postgres.port)

    assert len(used) >= len(KINDS)
    for found in (fresh, used):
        assert len(set(found)) == len(found), "two processes share a connection"
    processes = "SELECT count(DISTINCT process) FROM chaos_row"
    shared = "SELECT backend FROM chaos_row GROUP BY backend HAVING count(DISTINCT process) > 1"
    assert postgres.execute(processes)[0][0] >= len(KINDS)
    assert postgres.execute(shared) == [], "two processes used one backend"


def connections_of(yard: DatabaseYard, port: int) -> list[int]:
    """Return the local ports of every process's connections to the database, each as often as it is held."""
    return [
        connection.laddr.port
        for process in yard.processes()
        for connection in process.net_connections("tcp")
        if connection.raddr and connection.raddr.port == port
    ]


def locked_table(server: PostgresUnderTest) -> AbstractContextManager[Any]:
    """Hold a lock on the whole table for the time of the block."""
    connection = psycopg.connect(server.url)
    connection.execute("LOCK TABLE chaos_row IN ACCESS EXCLUSIVE MODE")
    return connection


def plain_waits(yard: DatabaseYard, seconds: float) -> list[float]:
    """Return how long jobs that need no database waited for their start, ordered."""
    with steadily(lambda: yard.send("plain_job", PLAIN), 0.02) as plain:
        let_pass(seconds)
    yard.wait_for_completed(plain)
    return yard.waits_ms(plain)


def readiness(yard: DatabaseYard) -> dict[str, bool]:
    """Return dependency -> whether it is ready, as the web would say."""
    return json.loads(yard.manage("shell", "--verbosity=0", "-c", READINESS).splitlines()[-1])


def median(ordered: list[float]) -> float:
    return ordered[len(ordered) // 2]
