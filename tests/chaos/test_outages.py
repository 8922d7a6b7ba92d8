"""A provider is away for 20 minutes: no dead letter, all is done within one retry of its return, and no storm."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from project.topology import YARD
from tests.chaos.outages import MINUTE_S, OutageYard, SideServer
from tests.chaos.postgres import PostgresUnderTest

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
