"""A process whose clock is a minute off reckons with the server's time: nothing is too old, claimed or sent early."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
import redis
import time_machine

from apps.mail import guard
from switchyard.broker.clock import CLOCK, now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.server_clock import EVERY_S, ServerClock
from switchyard.broker.redis_broker import RedisBroker
from switchyard.middleware.clock_comparison import ClockComparison, compare_clocks
from switchyard.schedules.runner import Scheduler
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


def test_the_servers_clock_is_asked_for_once_in_ten_seconds(valkey: redis.Redis) -> None:
    clock = ServerClock(calls_on(valkey))
    asked = valkey.info("commandstats").get("cmdstat_time", {"calls": 0})["calls"]

    for _ in range(5):
        clock.compare()

    assert valkey.info("commandstats")["cmdstat_time"]["calls"] == asked + 1
    assert CLOCK.ahead_ms is not None and abs(CLOCK.ahead_ms) < 10_000
    assert clock._due_s - time.monotonic() <= EVERY_S


def test_a_server_that_is_away_leaves_the_clock_as_it_is() -> None:
    calls = calls_on(connect("redis://127.0.0.1:1/0"))

    ServerClock(calls).compare()

    assert CLOCK.ahead_ms is None


def test_a_message_is_no_older_on_a_host_whose_clock_is_off(
    broker: RedisBroker, run_worker: Any, off: timedelta
) -> None:
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


def test_a_host_whose_clock_is_ahead_takes_no_mail_over_that_another_is_sending(db: Any, valkey: redis.Redis) -> None:
    assert guard.claim("job", "welcome", "ada@example.com")[1]

    with time_machine.travel(datetime.now(UTC) + OFF, tick=True):
        ServerClock(calls_on(valkey)).compare()

        assert not guard.claim("job", "welcome", "ada@example.com")[1]


def test_a_scheduler_reckons_with_the_servers_minutes(yard_broker: Any, off: timedelta) -> None:
    server_ms = now_ms()
    with time_machine.travel(datetime.now(UTC) + off, tick=True):
        broker = yard_broker(small_yard())
        compare_clocks(broker)
        with the_global_broker(broker):
            scheduler = Scheduler()
            scheduler.step()

        assert abs(scheduler._now().timestamp() * 1_000 - server_ms) < 30_000


def test_the_projects_broker_compares_and_the_one_in_memory_does_not(request: pytest.FixtureRequest) -> None:
    assert isinstance(dramatiq.get_broker().middleware[0], ClockComparison)

    in_memory = request.getfixturevalue("switchyard_broker")

    assert not [entry for entry in in_memory.middleware if isinstance(entry, ClockComparison)]
