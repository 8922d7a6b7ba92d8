"""A database or a provider that is unreachable, locked or away for long costs time, and no job."""

import contextlib
import json
import math
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from dramatiq.message import Message

from project.topology import YARD
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_records import Job
from switchyard.embedded.server import free_port
from switchyard.workers.shared.fork import die_with_parent
from tests.chaos.database_yard import KINDS, PLAIN
from tests.chaos.databases import (
    SQLITE_TABLE,
    TABLE,
    DatabaseYard,
    StartedYard,
    environment,
    manage,
    sqlite_writer,
    steadily,
)
from tests.chaos.load import let_pass, wait_until_drained
from tests.chaos.pools import ROOT
from tests.chaos.postgres import PostgresUnderTest
from tests.chaos.test_server_faults import p99
from tests.waiting import wait_for

long = pytest.mark.long
READINESS = (
    "import json; from switchyard.operations.views import dependencies; "
    "print(json.dumps({name: each['ok'] for name, each in dependencies().items()}))"
)
MINUTE_S = 60.0
OUTAGE_MIN = 20
# A start of the pools of retries may wait for those before it: the machine is slower than the hurried clock.
SLACK_S = 40.0
BUSIEST_SHARE = 0.25
# Few jobs may come together by chance, with a full jitter as well.
DEVIATIONS = 3


@pytest.fixture(scope="module")
def postgres(valkey_url, tmp_path_factory) -> Iterator[PostgresUnderTest]:
    """A PostgreSQL with the platform's tables, for all tests of the module."""
    folder = tmp_path_factory.mktemp("migrating")
    with PostgresUnderTest() as server:
        manage(environment(folder, valkey_url, server.url), "migrate", "--verbosity=0")
        server.execute(TABLE)
        yield server


@pytest.fixture
def yard_on(valkey, valkey_url, ledger) -> Iterator[Any]:
    """Start real pools on a database: ``yard_on(url)``."""
    with contextlib.ExitStack() as started:

        def start(database_url: str) -> DatabaseYard:
            yard = DatabaseYard(ledger, valkey_url, database_url)
            started.callback(lambda: (print(yard.log()[-4_000:]), yard.stop()))
            yard.start()
            return yard

        yield start


@pytest.fixture
def postgres_yard(postgres, yard_on) -> DatabaseYard:
    return yard_on(postgres.url)


@pytest.fixture
def sqlite_path(tmp_path, valkey_url) -> Path:
    """An SQLite database with the platform's tables."""
    path = tmp_path / "db.sqlite3"
    manage(environment(tmp_path, valkey_url, f"sqlite:///{path}"), "migrate", "--verbosity=0")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(SQLITE_TABLE)
    return path


def accounted(yard: DatabaseYard) -> None:
    found = yard.ledger.account()
    assert (found.lost, found.unexpected, yard.dead()) == ((), (), 0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("away_s", "every_s", "within_s"), [(4, 0.2, inf), pytest.param(60, 0.05, 10, marks=long)])
def test_postgres_that_is_away_costs_time_and_no_job(postgres, postgres_yard, away_s, every_s, within_s):
    yard = postgres_yard
    yard.wait_for_completed(yard.send_rows(60, kinds=KINDS))
    before = {process.pid for process in yard.processes()}
    ready_before = readiness(yard)

    with steadily(lambda: yard.send_rows(1, kinds=KINDS)[0], every_s) as rows:
        with steadily(lambda: yard.send("plain_job", PLAIN), every_s) as plain:
            postgres.stop()
            unready = readiness(yard)
            away_since, live = time.monotonic(), [yard.live()]
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
    wait_until_drained(yard.broker, 120)

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
def test_a_locked_table_holds_up_nothing_but_who_wants_it(database, held_s, median_ms, within_s, request, yard_on):
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
    wait_until_drained(yard.broker, 120)

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


@long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds", [10, 50])
def test_connections_that_postgres_cut_between_tasks_cost_no_attempt(postgres, postgres_yard, rounds):
    yard, cut = postgres_yard, []
    for _ in range(rounds):
        jobs = yard.send_rows(90, kinds=KINDS) + [yard.send("async_row", "threads") for _ in range(10)]
        yard.wait_for_completed(jobs)
        wait_until_drained(yard.broker, 120)
        cut.append(postgres.cut_connections())

    print(f"{rounds * 100} tasks, {sum(cut)} connections cut between them; attempts spent {yard.attempts_spent()}")
    accounted(yard)
    assert min(cut) >= len(KINDS)
    assert yard.attempts_spent() == 0, yard.log()[-4_000:]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cuts", [4, pytest.param(100, marks=long)])
def test_connections_that_postgres_cut_in_the_act_fail_nobody_for_good(postgres, postgres_yard, cuts):
    yard, cut = postgres_yard, 0
    with steadily(lambda: yard.send_rows(1, kinds=KINDS)[0], 0.005) as rows:
        for _ in range(cuts):
            before = len(rows)
            wait_for(lambda before=before: len(rows) > before + 50)
            cut += postgres.cut_connections()
    yard.wait_for_completed(rows)
    wait_until_drained(yard.broker, 120)

    print(f"{len(rows)} tasks, {cut} connections cut under load; attempts spent {yard.attempts_spent()}")
    accounted(yard)
    assert yard.attempts_spent() <= cut


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("query", ["", pytest.param("?pool=4", id="pooled", marks=long)])
@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=long)])
def test_postgres_that_is_killed_under_load_loses_no_job(kills, query, postgres, yard_on):
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
    wait_until_drained(yard.broker, 120)

    written = {job for (job,) in postgres.execute("SELECT DISTINCT job FROM chaos_row")}
    print(
        f"{kills} kills, {len(rows)} tasks, the first completed {median(sorted(waits_s)):.1f} s (median), "
        f"{max(waits_s):.1f} s (worst) after each start; attempts spent {yard.attempts_spent()}"
    )
    accounted(yard)
    assert set(rows) <= written, "a committed row is gone"


@pytest.mark.long
def test_a_dead_letter_gets_its_row_over_a_connection_that_postgres_cut(postgres, postgres_yard):
    job = postgres_yard.send("gives_up", "threads")
    noted = "SELECT job FROM chaos_row WHERE job LIKE %s"
    [(row,)] = wait_for(lambda: postgres.execute(noted, f"{job}:%"), what="its connection")

    postgres.execute("SELECT pg_terminate_backend(%s::int)", row.rpartition(":")[2])

    rows = "SELECT reason FROM switchyard_dead_letters_deadletter WHERE message_id = %s"
    assert wait_for(lambda: postgres.execute(rows, job), what="the dead letter's row") == [("permanent",)]
    assert "dead letter has no row yet" not in postgres_yard.log()


@pytest.mark.parametrize("query", ["", pytest.param("?pool=4", id="pooled", marks=long)])
def test_no_process_has_another_ones_connection_to_postgres(query, postgres, yard_on):
    yard = yard_on(postgres.url + query)
    postgres.execute("TRUNCATE chaos_row")
    fresh = connections_of(yard, postgres.port)
    yard.wait_for_completed(yard.send_rows(120, kinds=KINDS))

    used = connections_of(yard, postgres.port)

    assert len(used) >= len(KINDS)
    for found in (fresh, used):
        assert len(set(found)) == len(found), "two processes share a connection"
    assert postgres.execute("SELECT count(DISTINCT process) FROM chaos_row")[0][0] >= len(KINDS)
    shared = "SELECT backend FROM chaos_row GROUP BY backend HAVING count(DISTINCT process) > 1"
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
    connection = psycopg.connect(server.url)
    connection.execute("LOCK TABLE chaos_row IN ACCESS EXCLUSIVE MODE")
    return connection


def plain_waits(yard: DatabaseYard, seconds: float) -> list[float]:
    with steadily(lambda: yard.send("plain_job", PLAIN), 0.02) as plain:
        let_pass(seconds)
    yard.wait_for_completed(plain)
    return yard.waits_ms(plain)


def readiness(yard: DatabaseYard) -> dict[str, bool]:
    """Return dependency -> whether it is ready, as the web would say."""
    return json.loads(yard.manage("shell", "--verbosity=0", "-c", READINESS).splitlines()[-1])


def median(ordered: list[float]) -> float:
    return ordered[len(ordered) // 2]


class Failure(NamedTuple):
    """An attempt that failed: when, and when the next one is due, in seconds since the epoch."""

    job: str
    at_s: float
    due_s: float


class SideServer:
    """A webhook receiver or a mail sink in a process of its own, on a port that it has before it starts."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.port = free_port()
        self._command = [sys.executable, "-m", module, "--port", str(self.port), *arguments]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent(signal.SIGTERM)
        )
        assert "ready" in self._process.stdout.readline()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


class OutageYard(StartedYard):
    """Pools of the project, as a deployment runs them, with delays of retries divided by ``speed``."""

    def __init__(self, folder: Path, broker_url: str, database_url: str, *, speed: int, **more: str) -> None:
        own = environment(folder, broker_url, database_url, "tests.chaos.outage_yard.settings")
        own |= {"OUTAGE_SPEED": str(speed), "SWITCHYARD_LOG_FORMAT": "json", **more}
        super().__init__(folder, broker_url, YARD, own)
        self.speed = speed

    def rows(self, kind: str, count: int, *more: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "tests.chaos.outage_yard.rows", kind, str(count), *more]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True)
        return list(json.loads(done.stdout))

    def send(self, queue: str, actor: str, arguments: list[dict[str, Any]]) -> list[str]:
        return [self.broker.enqueue(Message(queue, actor, (), kwargs, {})).message_id for kwargs in arguments]

    def probe(self, queue: str, jobs: list[str], timeout_s: float) -> list[float]:
        """Send live work every 50 ms until all jobs have ended; return how long each probe waited, in ms."""
        probes: list[str] = []
        deadline = time.monotonic() + timeout_s
        open_jobs = set(jobs)
        while open_jobs:
            probes += self.send(queue, f"probe_{queue}", [{}])
            let_pass(0.05)
            states = facilities(self.broker).records.states(list(open_jobs))
            open_jobs = {job for job, state in zip(list(open_jobs), states, strict=True) if state != "succeeded"}
            assert time.monotonic() < deadline, (len(open_jobs), Counter(states), self.log()[-4_000:])
        found = [self.record(probe) for probe in probes[:-1]]
        return sorted(float((one.started_at or 0) - (one.enqueued_at or 0)) for one in found if one.started_at)

    def record(self, job: str) -> Job:
        found = facilities(self.broker).records.read(job)
        assert found is not None, job
        return found

    def failures(self) -> list[Failure]:
        """Return the attempts that failed, oldest first, as the pools logged them."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.endswith("}")]
        told = [line for line in lines if line.get("event") == "retried"]
        at_s = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in told]
        return [Failure(line["job_id"], at, at + line["delay_ms"] / 1_000) for line, at in zip(told, at_s, strict=True)]


@pytest.fixture(scope="module")
def emptied() -> Iterator[PostgresUnderTest]:
    """A PostgreSQL for all tests of the module."""
    with PostgresUnderTest() as server:
        yield server


@pytest.fixture
def yard_with(emptied, valkey, valkey_url, tmp_path) -> Iterator[Any]:
    """Build a yard on an empty database of PostgreSQL: ``yard_with(speed=100, SWITCHYARD_SMTP_URL=…)``."""
    with contextlib.ExitStack() as made:

        def make(*, speed: int, **environment: str) -> OutageYard:
            emptied.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            yard = OutageYard(tmp_path, valkey_url, emptied.url, speed=speed, **environment)
            made.callback(yard.stop)
            yard.manage("migrate", "--verbosity=0")
            return yard

        yield make


def outlast(yard: OutageYard, queue: str, jobs: list[str], come_back: Callable[[], None]) -> None:
    wait_for(lambda: {*jobs} <= {failure.job for failure in yard.failures()}, 120, what="first attempts")
    let_pass(OUTAGE_MIN * MINUTE_S / yard.speed)
    come_back()
    back_at = time.time()
    longest_s = max(YARD.queue_of(queue).retry.longest_ms(retry) for retry in range(1, 12)) / 1_000 / yard.speed
    waits_ms = yard.probe(queue, jobs, longest_s + 120)

    records = {job: yard.record(job) for job in jobs}
    due_s = {failure.job: failure.due_s for failure in yard.failures()}
    starts_s = {job: (record.started_at or 0) / 1_000 for job, record in records.items()}
    late_s = max(starts_s[job] - max(due_s[job], back_at) for job in jobs)
    busiest = max(Counter(int(due / (MINUTE_S / yard.speed)) for due in due_s.values()).values()) / len(jobs)
    print(
        f"{len(jobs)} jobs of {queue}, {yard.speed} times as fast, away for {OUTAGE_MIN} min: attempts "
        f"{dict(sorted(Counter(record.attempts for record in records.values()).items()))}, dead letters {yard.dead()}, "
        f"last start {(max(starts_s.values()) - back_at) * yard.speed / MINUTE_S:.0f} min after the return, "
        f"{late_s:.2f} s after it was due, busiest minute {busiest:.0%}, "
        f"live work waited {waits_ms[len(waits_ms) // 2]:.0f} ms (median), {waits_ms[-1]:.0f} ms (worst)"
    )
    assert yard.dead() == 0
    assert {record.state for record in records.values()} == {"succeeded"}
    assert [failure for failure in yard.failures() if failure.at_s > back_at + SLACK_S] == [], "failed after the return"
    assert late_s < SLACK_S, "later than the next retry after the return"
    deviation = math.sqrt(BUSIEST_SHARE * (1 - BUSIEST_SHARE) / len(jobs))
    assert busiest < BUSIEST_SHARE + DEVIATIONS * deviation, "the retries came together"


@pytest.mark.timeout(500)
@pytest.mark.parametrize(("count", "speed"), [(40, 1_200), pytest.param(1_000, 60, marks=long)])
def test_an_endpoint_that_is_away_gets_every_delivery(count, speed, yard_with, emptied):
    receiver = SideServer("apps.webhooks.receiver")
    yard = yard_with(speed=speed, SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES=f"127.0.0.1:{receiver.port}")
    arguments = yard.rows("webhook", count, f"http://127.0.0.1:{receiver.port}/healthy")
    yard.start("webhook", "webhook-retry")

    jobs = yard.send("webhook", "deliver_webhook", arguments)
    with contextlib.closing(receiver):
        outlast(yard, "webhook", jobs, receiver.start)

    assert emptied.execute("SELECT state, count(*) FROM webhooks_delivery GROUP BY state") == [("succeeded", count)]


@long
@pytest.mark.timeout(500)
def test_a_mail_server_that_is_away_gets_every_mail_once(yard_with, tmp_path):
    sink = SideServer("apps.mail.sink", "--dir", str(tmp_path / "mailbox"))
    yard = yard_with(speed=20, SWITCHYARD_SMTP_URL=f"smtp://127.0.0.1:{sink.port}")
    yard.start("default", "retries")

    jobs = yard.send("default", "send_note", [{"to": f"person.{number}@mail.example"} for number in range(1_000)])
    with contextlib.closing(sink):
        outlast(yard, "default", jobs, sink.start)

    assert len(list((tmp_path / "mailbox/new").iterdir())) == 1_000


@long
@pytest.mark.timeout(500)
def test_a_database_that_is_away_gets_every_payment_once(yard_with, emptied):
    yard = yard_with(speed=20)
    arguments = yard.rows("urgent", 1_000)
    yard.start("urgent", "retries")
    emptied.stop()

    jobs = yard.send("urgent", "apply_payment_event", arguments)
    try:
        outlast(yard, "urgent", jobs, emptied.start)
    finally:
        if not emptied.runs():
            emptied.start()

    assert emptied.execute("SELECT count(*), count(DISTINCT invoice_id) FROM shop_payment") == [(1_000, 1_000)]
    assert emptied.execute("SELECT DISTINCT status FROM shop_invoice") == [("paid",)]
