"""A process whose clock is off reckons with the server's time: nothing is stolen, too old, claimed or sent early."""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest
import time_machine

from apps.mail import guard
from switchyard.broker.clock import CLOCK, now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.server_clock import EVERY_S, ServerClock
from switchyard.middleware.clock_comparison import ClockComparison, compare_clocks
from switchyard.schedules.runner import Scheduler
from switchyard.wiring import build_yard
from tests.factories.brokers import the_global_broker
from tests.factories.yards import small_yard
from tests.waiting import wait_for

OFF = timedelta(seconds=61)


@pytest.fixture(autouse=True)
def unmeasured() -> Iterator[None]:
    CLOCK.forget()
    yield
    CLOCK.forget()


@pytest.fixture(params=[OFF, -OFF], ids=["ahead", "behind"])
def off(request: pytest.FixtureRequest) -> timedelta:
    return request.param


def test_the_servers_clock_is_asked_for_once_in_ten_seconds(valkey):
    clock = ServerClock(calls_on(valkey))
    asked = valkey.info("commandstats").get("cmdstat_time", {"calls": 0})["calls"]

    for _ in range(5):
        clock.compare()

    assert valkey.info("commandstats")["cmdstat_time"]["calls"] == asked + 1
    assert CLOCK.ahead_ms is not None and abs(CLOCK.ahead_ms) < 10_000
    assert clock._due_s - time.monotonic() <= EVERY_S


def test_a_server_that_is_away_leaves_the_clock_as_it_is():
    ServerClock(calls_on(connect("redis://127.0.0.1:1/0"))).compare()

    assert CLOCK.ahead_ms is None


def test_a_message_is_no_older_on_a_host_whose_clock_is_off(broker, run_worker, off):
    compare_clocks(broker)

    @dramatiq.actor(broker=broker, queue_name="work", max_age=30_000)
    def job() -> None: ...

    def states() -> list[str]:
        return [found.state for one in sent if (found := facilities(broker).records.read(one.message_id)) is not None]

    sent = [job.send()]
    with time_machine.travel(datetime.now(UTC) + off, tick=True):
        # The process becomes the other host.
        CLOCK.forget()
        facilities(broker).clock._due_s = 0.0
        sent.append(job.send())
        with run_worker(broker=broker):
            wait_for(lambda: [state for state in states() if state in ("succeeded", "expired")][1:])

    assert states() == ["succeeded", "succeeded"]


def test_a_host_whose_clock_is_ahead_takes_no_mail_over_that_another_is_sending(db, valkey):
    assert guard.claim("job", "welcome", "ada@example.com")[1]

    with time_machine.travel(datetime.now(UTC) + OFF, tick=True):
        ServerClock(calls_on(valkey)).compare()

        assert not guard.claim("job", "welcome", "ada@example.com")[1]


def test_a_scheduler_reckons_with_the_servers_minutes(yard_broker, off):
    server_ms = now_ms()
    with time_machine.travel(datetime.now(UTC) + off, tick=True):
        broker = yard_broker(small_yard())
        compare_clocks(broker)
        with the_global_broker(broker):
            scheduler = Scheduler()
            scheduler.step()

        assert abs(scheduler._now().timestamp() * 1_000 - server_ms) < 30_000


def test_the_projects_broker_compares_and_the_one_in_memory_does_not(request):
    assert isinstance(dramatiq.get_broker().middleware[0], ClockComparison)

    in_memory = request.getfixturevalue("switchyard_broker")

    assert not [entry for entry in in_memory.middleware if isinstance(entry, ClockComparison)]


HOUR = timedelta(hours=1)
DELAY_MS = 600


@pytest.fixture(params=[HOUR, -HOUR], ids=["ahead", "behind"])
def skewed(request: pytest.FixtureRequest) -> Iterator[time_machine.Traveller]:
    """This process's clock is an hour off. Monotonic time and the server's clock are not."""
    with time_machine.travel(datetime.now(UTC) + request.param, tick=True) as traveller:
        yield traveller


def test_a_skewed_sweeper_leaves_leases_alone(broker, skewed):
    family = broker.families["work"]
    family.join("held/live")

    assert family.lapsed() == []
    assert family.reclaim("held/live", only_lapsed=True) is None
    assert family.renew(["held/live"]) == []


def test_scheduled_work_starts_by_the_servers_clock(broker, run_worker, skewed):
    started_s: list[float] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        started_s.append(time.monotonic())

    with run_worker(broker=broker):
        sent_s = time.monotonic()
        job.send_with_options(delay=DELAY_MS)
        wait_for(lambda: started_s, what="it started at all, an hour too late by one clock")

    assert started_s[0] - sent_s >= DELAY_MS / 1000 - 0.05


def test_a_clock_that_steps_back_while_a_job_runs_makes_no_negative_time(broker, run_worker, caplog):
    caplog.set_level(logging.INFO, "switchyard.jobs")
    with time_machine.travel(datetime.now(UTC), tick=True) as clock:

        @dramatiq.actor(broker=broker, queue_name="work")
        def job() -> None:
            clock.move_to(datetime.now(UTC) - HOUR)

        sent = job.send()
        waiting = build_yard(small_yard(), broker.client, broker.keys)
        clock.move_to(datetime.now(UTC) - HOUR)
        age_ms = facilities(waiting).transport.stats("work").live.oldest_age_ms
        with run_worker(broker=broker):
            wait_for(lambda: (found := facilities(broker).records.read(sent.message_id)) and found.state == "succeeded")
        waiting.close()

    assert age_ms is not None and age_ms >= 0
    told = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    durations = [event["duration_ms"] for event in told if event.get("job_id") == sent.message_id]
    assert durations and min(durations) >= 0
