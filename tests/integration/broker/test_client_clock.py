"""A worker whose clock is an hour off, or steps back, steals nothing, starts nothing early, counts no negative time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
import time_machine

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.wiring import build_yard
from tests.factories.yards import small_yard
from tests.waiting import wait_for

HOUR = timedelta(hours=1)
DELAY_MS = 600


@pytest.fixture(params=[HOUR, -HOUR], ids=["ahead", "behind"])
def skewed(request: pytest.FixtureRequest) -> Iterator[time_machine.Traveller]:
    """This process's clock is an hour off. Monotonic time and the server's clock are not."""
    with time_machine.travel(datetime.now(UTC) + request.param, tick=True) as traveller:
        yield traveller


def test_a_skewed_sweeper_leaves_leases_alone(broker: RedisBroker, skewed: Any) -> None:
    family = broker.families["work"]
    family.join("held/live")

    assert family.lapsed() == []
    assert family.reclaim("held/live", only_lapsed=True) is None
    assert family.renew(["held/live"]) == []


def test_scheduled_work_starts_by_the_servers_clock(broker: RedisBroker, run_worker: Any, skewed: Any) -> None:
    started_s: list[float] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        started_s.append(time.monotonic())

    with run_worker(broker=broker):
        sent_s = time.monotonic()
        job.send_with_options(delay=DELAY_MS)
        wait_for(lambda: started_s, what="it started at all, an hour too late by one clock")

    assert started_s[0] - sent_s >= DELAY_MS / 1000 - 0.05


def test_a_clock_that_steps_back_while_a_job_runs_makes_no_negative_time(
    broker: RedisBroker, run_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
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
