"""Two hosts that share nothing but servers: one is cut off, killed, or has a wrong clock, and no job is lost."""

import contextlib
import hashlib
import http.client
import itertools
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from switchyard.broker.interface import facilities
from tests.chaos.databases import environment, manage
from tests.chaos.hosts import CUT_S, FAULTS, SETTINGS, WRONG_S, Host, TwoHosts, harm, has_namespaces, take_over
from tests.chaos.hosts_yard import PACED, PACED_PER_S
from tests.chaos.load import QUEUE, Producers, enqueue, let_pass, wait_until_drained
from tests.chaos.postgres import PostgresUnderTest
from tests.environment import SERVER
from tests.factories.s3 import CREDENTIALS, S3Server
from tests.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.timeout(400)]
long = pytest.mark.long
# A lease, a sweep, and a pool that is busy with what waited.
TAKEN_OVER_S = 25.0
PROJECT = "project.settings"
PORT = 8000
# An export of these rows takes seconds: a fault meets it in the middle.
ROWS, EXPORTS = 60_000, 3
# With those of development a web answers its own machine alone.
SECRETS = {name: f"{name} of the tests".ljust(50, ".") for name in ("DJANGO_SECRET_KEY", "SWITCHYARD_PAYMENT_SECRET")}
TOKEN = "from tests.factories.callers import Caller; print(Caller().headers['Authorization'])"
CUSTOMERS = f"""
INSERT INTO shop_customer (name, email, company, country, created_at)
SELECT 'Customer ' || n, 'customer.' || n || '@mail.example', 'Company ' || n, 'DE', now()
FROM generate_series(1, {ROWS}) AS n
"""


@pytest.fixture(scope="module")
def postgres(valkey_url, tmp_path_factory) -> Iterator[PostgresUnderTest]:
    folder = tmp_path_factory.mktemp("migrating")
    with PostgresUnderTest() as server:
        manage(environment(folder, valkey_url, server.url, SETTINGS), "migrate", "--verbosity=0")
        yield server


@pytest.fixture
def without_database(tmp_path) -> Iterator[TwoHosts]:
    with contextlib.closing(TwoHosts(tmp_path, 0)) as two:
        yield two


@pytest.fixture
def two(tmp_path, postgres) -> Iterator[TwoHosts]:
    with contextlib.closing(TwoHosts(tmp_path, postgres.port)) as two:
        yield two


def test_a_host_whose_clock_is_wrong_works_beside_another(without_database):
    two = without_database
    two.add(clock_s=61)
    two.add()
    two.start_pools()

    for number in range(40):
        enqueue(two.broker, two.ledger, f"short-{number}.", 20, max_age=55_000)
    wait_for(lambda: len(two.completed()) == 40, what="40 jobs completed, none too old")
    more = (f"more-{number}." for number in itertools.count())

    def both_worked() -> bool:
        """Whether both hosts have done some; while one stands still, the other takes all that is sent."""
        enqueue(two.broker, two.ledger, next(more), 20)
        return all(host.ledger.jobs("completed") for host in two.hosts)

    wait_for(both_worked, what="both work")
    wait_until_drained(two.broker)
    reports = wait_for(lambda: all(one.clock_ahead_ms is not None for one in two.reports()) and two.reports())

    assert two.account().duplicated == ()
    assert len({one.member for one in reports}) == 2
    ahead_ms = sorted(one.clock_ahead_ms or 0 for one in reports)
    # The clock is set while the settings load. That, and the question for the time, take theirs on a busy machine.
    assert abs(ahead_ms[0]) < 5_000 and 30_000 < ahead_ms[1] < 66_000
    server_ms = int(float(two.broker.client.time()[0]) * 1_000)
    assert all(abs(one.beat_at - server_ms) < 20_000 for one in reports), "reports bear the server's time"


@long
@pytest.mark.parametrize("fault", FAULTS)
def test_the_other_host_takes_over_what_ran(two, fault):
    assert take_over(two, fault, wait_until_done=partial(wait_until_drained, two.broker, 40))[0] <= TAKEN_OVER_S


@long
@pytest.mark.parametrize("fault", FAULTS)
def test_a_rate_limit_holds_over_both_hosts(two, fault):
    harmed, other = two.add(clock_s=WRONG_S.get(fault, 0)), two.add()
    for host in (harmed, other):
        host.start_pool("work")
    count = 40 * PACED_PER_S
    for number in range(count):
        two.send("paced_job", f"paced-{number:03d}.", queue=PACED)
    wait_for(lambda: len(two.completed()) >= 5 * PACED_PER_S, what="the first jobs")
    shared = [len(host.ledger.jobs("completed")) for host in two.hosts]

    harm(fault, harmed)
    wait_for(lambda: len(two.completed()) == count, 120, what=f"{count} jobs")
    wait_until_drained(two.broker, 40)

    starts = sorted(entry.at_s for host in two.hosts for entry in host.ledger.entries() if entry.phase == "started")
    windows = [end - begin for begin, end in zip(starts, starts[PACED_PER_S:], strict=False)]
    print(f"{fault}: {count} jobs in {starts[-1] - starts[0]:.1f} s, closest {PACED_PER_S} starts {min(windows):.2f} s")
    assert min(shared) > 0, "both hosts took some"
    assert set(two.account().duplicated) <= set(harmed.ledger.jobs("started"))
    # A start is noted a little after its slot was reserved.
    assert min(windows) > 0.7
    assert (starts[-1] - starts[0]) >= (count / PACED_PER_S - 1) * 0.95


@long
@pytest.mark.parametrize("fault", FAULTS)
def test_a_message_for_newer_code_waits_for_the_host_that_has_it(two, fault):
    harmed, new = two.add(clock_s=WRONG_S.get(fault, 0)), two.add()
    harmed.start_pool("work")
    jobs = [f"new-{number}." for number in range(20)]
    for job in jobs:
        two.send("new_job", job)
    wait_for(lambda: facilities(two.broker).transport.stats(QUEUE).parked == len(jobs), what="20 parked messages")

    new.start("runpool", "work", release="new")
    harm(fault, harmed)
    wait_for(lambda: set(jobs) <= set(new.ledger.jobs("completed")), what="the new host runs them")
    wait_until_drained(two.broker, 40)

    assert two.account().duplicated == ()


@long
@pytest.mark.parametrize("fault", FAULTS)
def test_pools_come_and_go_under_load(two, fault):
    harmed, scaled = two.add(clock_s=WRONG_S.get(fault, 0)), two.add()
    harmed.start_pool("work")
    base = scaled.start_pool("work")
    producers = Producers(two.broker, two.ledger, per_s=100, threads=2, ms=20, plain=True)
    producers.start()

    for turn in range(3):
        extra = [scaled.start_pool("work"), *([harmed.start_pool("work")] if turn == 0 else [])]
        producers.wait_for_accepted(100)
        assert len({one.member for one in two.reports()}) >= 2
        scaled.terminate(extra[0])
        if turn == 0:
            harm(fault, harmed)
    producers.stop()
    wait_until_drained(two.broker, 40)

    found = two.account()
    print(f"{fault}: {len(found.accepted)} accepted, lost {len(found.lost)}, twice {len(found.duplicated)}")
    assert set(found.duplicated) <= set(harmed.ledger.jobs("started"))
    wait_for(lambda: all(one.state == "up" for one in two.reports()))
    assert base.process.poll() is None


@long
@pytest.mark.parametrize("fault", FAULTS)
def test_each_minute_has_one_tick_whichever_host_leads(two, postgres, fault):
    postgres.execute("TRUNCATE switchyard_schedules_scheduletick, switchyard_schedules_schedulestate")
    harmed, other = two.add(clock_s=WRONG_S.get(fault, 0)), two.add()
    led = harmed.start("runscheduler", ready="leading")
    other.start_pool("ticks")
    other.start("runscheduler", ready="scheduler started")
    began = datetime.now(UTC).replace(second=0, microsecond=0)

    # Minutes pass under the first leader, during the change, and under the other one.
    until(began + timedelta(seconds=60 + 45))
    if fault in WRONG_S:
        harmed.terminate(led)
    elif fault == "cut":
        harmed.cut()
    else:
        harmed.kill()
    until(began + timedelta(seconds=2 * 60 + 20))
    if fault == "cut":
        harmed.heal()
    until(began + timedelta(seconds=3 * 60 + 10))

    rows = ticks_of(postgres)
    wait_for(lambda: set(rows.values()) <= set(other.ledger.jobs("completed")), what="the ticks' jobs")
    to_wall_s = time.time() - time.monotonic()
    late_s = [other.ledger.of("started", job)[0].at_s + to_wall_s - due.timestamp() for due, job in rows.items()]
    print(f"{fault}: {len(rows)} ticks, started after {', '.join(f'{late:.1f}' for late in late_s)} s\n{led.log()}")
    first, last = min(rows), began + timedelta(minutes=3)
    minutes = round((last - first).total_seconds() / 60) + 1
    assert list(rows) == [first + timedelta(minutes=n) for n in range(minutes)], "one a minute, none of a later one"
    assert sorted(other.ledger.jobs("completed")) == sorted(rows.values()), "each ran once"
    assert min(late_s) > -0.1, "none early"


def until(moment: datetime) -> None:
    let_pass(max((moment - datetime.now(UTC)).total_seconds(), 0))


def ticks_of(postgres: PostgresUnderTest) -> dict[datetime, str]:
    sent = "SELECT due_at, job_id FROM switchyard_schedules_scheduletick WHERE outcome = 'sent' ORDER BY due_at"
    return {due.astimezone(UTC): job for due, job in postgres.execute(sent)}


HOLDS_A_LOCK = """
import time
from django.db import connection, transaction
with transaction.atomic(), connection.cursor() as cursor:
    cursor.execute("LOCK TABLE held")
    print("locked", flush=True)
    cursor.execute("{then}")
    time.sleep(600)
"""


THEN = {"silent": "SELECT 1", "an answer on its way": "SELECT pg_sleep(3), repeat('x', 100000)"}


@long
@pytest.mark.parametrize("then", THEN.values(), ids=THEN)
@pytest.mark.skipif(not has_namespaces(), reason="needs the right to make a network: only its cable can be pulled")
def test_a_host_that_is_cut_off_in_a_transaction_loses_its_locks(tmp_path, then):
    with PostgresUnderTest("10.0.0.0/8") as server:
        server.execute("CREATE TABLE held ()")
        host = Host(tmp_path, 1, broker_port=SERVER.port, database_port=server.port, past_proxy=True)
        try:
            host.start("shell", "--no-imports", "-c", HOLDS_A_LOCK.format(then=then), ready="locked")
            host.cut()
            cut_s = time.monotonic()
            server.execute("SET lock_timeout = '60s'; INSERT INTO held DEFAULT VALUES")
            freed_s = time.monotonic() - cut_s
        finally:
            print(host.log())
            host.close()

    print(f"the lock of a host that was cut off was free after {freed_s:.1f} s")
    assert 1 < freed_s < 30


class WebYard:
    """Hosts that share a broker, a database and a bucket, and the API of the first one."""

    def __init__(self, folder: Path, postgres: PostgresUnderTest, s3: S3Server) -> None:
        self._folder, self._database_port, self._bucket = folder, postgres.port, s3.bucket()
        self.hosts: list[Host] = []
        own = environment(folder, SERVER.url, postgres.url, PROJECT)
        manage(own, "migrate", "--verbosity=0")
        self._token = manage(own, "shell", "--no-imports", "-c", TOKEN).strip()
        postgres.execute(CUSTOMERS)

    def add(self) -> Host:
        options: dict[str, Any] = {"database_port": self._database_port, "bucket": self._bucket, "settings": PROJECT}
        self.hosts.append(Host(self._folder, len(self.hosts) + 1, broker_port=SERVER.port, **options))
        return self.hosts[-1]

    def ask(self, path: str, body: Any = None) -> bytes:
        connection = http.client.HTTPConnection(self.hosts[0].address, PORT, timeout=30)
        headers = {"Host": "localhost", "Authorization": self._token, "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status < 300, (path, answer.status, content[:500])
        return content

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(json.loads(self.ask(f"/api/v1/jobs/{job_id}")))

    def is_up(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.ask("/healthz"))
        return False

    def log(self) -> str:
        return "\n".join(host.log() for host in self.hosts)


@pytest.fixture
def yard(tmp_path, monkeypatch) -> Iterator[WebYard]:
    for name, value in (CREDENTIALS | SECRETS).items():
        monkeypatch.setenv(name, value)
    with contextlib.ExitStack() as opened:
        s3 = opened.enter_context(contextlib.closing(S3Server(tmp_path).start()))
        yard = WebYard(tmp_path, opened.enter_context(PostgresUnderTest()), s3)
        yield yard
        for host in yard.hosts:
            host.close()


@long
@pytest.mark.timeout(500)
@pytest.mark.parametrize("fault", ["killed", "cut"])
def test_an_export_that_its_host_does_not_finish_is_downloaded_from_the_web(yard, fault):
    web, harmed = yard.add(), yard.add()
    web.start("runweb", "--host", "0.0.0.0", "--port", str(PORT))
    harmed.start_pool("slow")
    wait_for(yard.is_up, 90, what="the web")
    asked = {"dataset": "customers", "format": "csv"}
    sent = [json.loads(yard.ask("/api/v1/exports", asked))["job_id"] for _ in range(EXPORTS)]

    def in_the_middle() -> list[str]:
        jobs = map(yard.job, sent)
        return [job["id"] for job in jobs if job["state"] == "running" and (job["progress"] or {}).get("done")]

    ran = wait_for(in_the_middle, what="an export runs")
    harmed_s = time.monotonic()
    if fault == "killed":
        harmed.kill()
        yard.add().start_pool("slow")
    else:  # back again, it makes them anew: an export that lost its database is a retry
        harmed.cut()
        let_pass(CUT_S)
        harmed.heal()
        harmed.start_pool("retries")

    def ended() -> list[dict[str, Any]]:
        jobs = [yard.job(job_id) for job_id in sent]
        return jobs if all(job["finished_at"] for job in jobs) else []

    jobs = wait_for(ended, 180, what="the exports end")
    print(f"{fault}: {len(ran)} of {len(sent)} ran there, all ended {time.monotonic() - harmed_s:.1f} s later")
    assert [job["state"] for job in jobs] == ["succeeded"] * EXPORTS, yard.log()
    files = [yard.ask(f"/api/v1/jobs/{job_id}/result") for job_id in sent]
    assert [hashlib.sha256(file).hexdigest() for file in files] == [job["result"]["sha256"] for job in jobs]
    assert [file.count(b"\r\n") for file in files] == [ROWS + 1] * EXPORTS
    for host in yard.hosts:
        assert not list(host.folder.rglob("*.csv"))
