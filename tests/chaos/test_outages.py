"""A provider is away for 20 minutes: no dead letter, all is done within one retry of its return, and no storm."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from dramatiq.message import Message

from project.topology import YARD
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.job_records import Job
from switchyard.embedded.server import free_port
from switchyard.wiring import build_yard
from switchyard.workers.shared.fork import die_with_parent
from tests.chaos.postgres import PostgresUnderTest
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
MINUTE_S = 60.0


class Failure(NamedTuple):
    """An attempt that failed: when, and when the next one is due, in seconds since the epoch."""

    job: str
    at_s: float
    due_s: float


class SideServer:
    """A webhook receiver or a mail sink in a process of its own: stopped and started again on one port."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.port = free_port()
        self._command = [sys.executable, "-m", module, "--port", str(self.port), *arguments]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent(signal.SIGTERM)
        )
        assert "ready" in self._process.stdout.readline()

    def stop(self) -> None:
        """End it: connections are refused from now on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None


class OutageYard:
    """Pools of the project, as a deployment runs them, with delays of retries divided by ``speed``."""

    def __init__(self, folder: Path, broker_url: str, database_url: str, *, speed: int, **environment: str) -> None:
        self.speed = speed
        self.broker = build_yard(YARD, connect(broker_url), Keys())
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.chaos.outage_yard.settings",
            "OUTAGE_SPEED": str(speed),
            "SWITCHYARD_BROKER_URL": broker_url,
            "SWITCHYARD_STATE_DIR": str(folder),
            "SWITCHYARD_LOG_FORMAT": "json",
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            "DATABASE_URL": database_url,
            **environment,
        }
        self._log = folder / "pools.log"
        self._process: subprocess.Popen[bytes] | None = None

    def rows(self, kind: str, count: int, *more: str) -> list[dict[str, Any]]:
        """Write the rows that jobs need, and return the arguments of each job."""
        command = [sys.executable, "-m", "tests.chaos.outage_yard.rows", kind, str(count), *more]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True)
        return list(json.loads(done.stdout))

    def manage(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.environment, check=True)

    def start(self, *pools: str) -> None:
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "runpools", *pools],
                env=self.environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        wait_for(lambda: "pools: all ready" in self._log.read_text(), 120, what=f"ready in {self._log}")

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.broker.close()
        self.broker.client.close()

    def send(self, queue: str, actor: str, arguments: list[dict[str, Any]]) -> list[str]:
        """Enqueue a job for each set of arguments and return their ids."""
        sent = []
        for kwargs in arguments:
            message: Message[Any] = Message(queue_name=queue, actor_name=actor, args=(), kwargs=kwargs, options={})
            sent.append(self.broker.enqueue(message).message_id)
        return sent

    def wait_until_all_failed(self, jobs: list[str]) -> None:
        wanted = set(jobs)
        wait_for(lambda: wanted <= {failure.job for failure in self.failures()}, 120, what="first attempts")

    def pass_minutes(self, minutes: float) -> None:
        """Let so many of the yard's hurried minutes pass."""
        threading.Event().wait(minutes * MINUTE_S / self.speed)

    def probe(self, queue: str, jobs: list[str], timeout_s: float) -> list[float]:
        """Send live work every 50 ms until all jobs have ended; return how long each probe waited, in ms."""
        probes: list[str] = []
        deadline = time.monotonic() + timeout_s
        open_jobs = set(jobs)
        while open_jobs:
            probes += self.send(queue, f"probe_{queue}", [{}])
            threading.Event().wait(0.05)
            states = facilities(self.broker).records.states(list(open_jobs))
            open_jobs = {job for job, state in zip(list(open_jobs), states, strict=True) if state != "succeeded"}
            assert time.monotonic() < deadline, (len(open_jobs), Counter(states), self.tail())
        found = [self.record(probe) for probe in probes[:-1]]
        return sorted(float((one.started_at or 0) - (one.enqueued_at or 0)) for one in found if one.started_at)

    def record(self, job: str) -> Job:
        found = facilities(self.broker).records.read(job)
        assert found is not None, job
        return found

    def failures(self) -> list[Failure]:
        """Return the attempts that failed, oldest first, as the pools logged them."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}")]
        return [
            Failure(
                line["job_id"],
                at := datetime.fromisoformat(line["timestamp"]).timestamp(),
                at + line["delay_ms"] / 1_000,
            )
            for line in lines
            if line.get("event") == "retried"
        ]

    def dead(self) -> int:
        """Return how many jobs were given up."""
        return sum(facilities(self.broker).transport.stats(queue.name).dead for queue in YARD.queues)

    def tail(self) -> str:
        return self._log.read_text(errors="replace")[-4_000:]


OUTAGE_MIN = 20
# A start of the pools of retries may wait for those before it: the machine is slower than the hurried clock.
SLACK_S = 40.0
BUSIEST_SHARE = 0.25
# Few jobs may come together by chance, with a full jitter as well.
DEVIATIONS = 3

long = pytest.mark.long
pytestmark = pytest.mark.timeout(500)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresUnderTest]:
    """A PostgreSQL for all tests of the module."""
    with PostgresUnderTest() as server:
        yield server


@pytest.fixture
def yard_with(postgres: PostgresUnderTest, valkey: redis.Redis, valkey_url: str, tmp_path: Path) -> Iterator[Any]:
    """Build a yard on an empty database of PostgreSQL: ``yard_with(speed=100, SWITCHYARD_SMTP_URL=…)``."""
    made: list[OutageYard] = []

    def make(*, speed: int, **environment: str) -> OutageYard:
        postgres.execute("DROP SCHEMA public CASCADE")
        postgres.execute("CREATE SCHEMA public")
        made.append(OutageYard(tmp_path, valkey_url, postgres.url, speed=speed, **environment))
        made[-1].manage("migrate", "--verbosity=0")
        return made[-1]

    yield make
    for yard in made:
        yard.stop()


def outlast(yard: OutageYard, queue: str, jobs: list[str], come_back: Callable[[], None]) -> None:
    """Let the outage pass, bring the provider back, and check how the jobs ended."""
    yard.wait_until_all_failed(jobs)
    yard.pass_minutes(OUTAGE_MIN)
    come_back()
    back_at = time.time()
    longest_s = max(YARD.queue_of(queue).retry.longest_ms(retry) for retry in range(1, 12)) / 1_000 / yard.speed
    waits_ms = yard.probe(queue, jobs, longest_s + 120)

    records = {job: yard.record(job) for job in jobs}
    due_s = {failure.job: failure.due_s for failure in yard.failures()}
    starts_s = {job: (record.started_at or 0) / 1_000 for job, record in records.items()}
    late_s = max(starts_s[job] - max(due_s[job], back_at) for job in jobs)
    minutes = Counter(int(due / (MINUTE_S / yard.speed)) for due in due_s.values())
    busiest = max(minutes.values()) / len(jobs)
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


@pytest.mark.parametrize(("count", "speed"), [(40, 1_200), pytest.param(1_000, 60, marks=long)])
def test_an_endpoint_that_is_away_gets_every_delivery(
    count: int, speed: int, yard_with: Any, postgres: PostgresUnderTest
) -> None:
    receiver = SideServer("apps.webhooks.receiver")
    yard = yard_with(speed=speed, SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES=f"127.0.0.1:{receiver.port}")
    arguments = yard.rows("webhook", count, f"http://127.0.0.1:{receiver.port}/healthy")
    yard.start("webhook", "webhook-retry")

    jobs = yard.send("webhook", "deliver_webhook", arguments)
    try:
        outlast(yard, "webhook", jobs, receiver.start)
    finally:
        receiver.stop()

    assert postgres.execute("SELECT state, count(*) FROM webhooks_delivery GROUP BY state") == [("succeeded", count)]


@pytest.mark.parametrize(("count", "speed"), [pytest.param(1_000, 20, marks=long)])
def test_a_mail_server_that_is_away_gets_every_mail_once(
    count: int, speed: int, yard_with: Any, tmp_path: Path
) -> None:
    sink = SideServer("apps.mail.sink", "--dir", str(tmp_path / "mailbox"))
    yard = yard_with(speed=speed, SWITCHYARD_SMTP_URL=f"smtp://127.0.0.1:{sink.port}")
    yard.start("default", "retries")
    arguments = [{"to": f"person.{number}@mail.example"} for number in range(count)]

    jobs = yard.send("default", "send_note", arguments)
    try:
        outlast(yard, "default", jobs, sink.start)
    finally:
        sink.stop()

    assert len(list((tmp_path / "mailbox/new").iterdir())) == count


@pytest.mark.parametrize(("count", "speed"), [pytest.param(1_000, 20, marks=long)])
def test_a_database_that_is_away_gets_every_payment_once(
    count: int, speed: int, yard_with: Any, postgres: PostgresUnderTest
) -> None:
    yard = yard_with(speed=speed)
    arguments = yard.rows("urgent", count)
    yard.start("urgent", "retries")
    postgres.stop()

    jobs = yard.send("urgent", "apply_payment_event", arguments)
    try:
        outlast(yard, "urgent", jobs, postgres.start)
    finally:
        if not postgres.runs():
            postgres.start()

    assert postgres.execute("SELECT count(*), count(DISTINCT invoice_id) FROM shop_payment") == [(count, count)]
    assert postgres.execute("SELECT DISTINCT status FROM shop_invoice") == [("paid",)]
