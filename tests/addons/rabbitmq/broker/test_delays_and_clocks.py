"""A delay on RabbitMQ ends in time although the clock of the sender's host, or of the worker's, is a minute off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
import time_machine

from switchyard.broker.clock import CLOCK
from switchyard.broker.interface import facilities
from switchyard.middleware.clock_comparison import compare_clocks
from tests.waiting import wait_for

DELAY_MS = 2_000


@pytest.fixture(autouse=True)
def unmeasured() -> Iterator[None]:
    CLOCK.forget()
    yield
    CLOCK.forget()


@contextmanager
def on_host(broker: Any, *, off_s: int) -> Iterator[None]:
    """Make this process one of another host, which has measured nothing yet."""
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=off_s), tick=True):
        CLOCK.forget()
        facilities(broker).clock._due_s = 0.0
        yield


@pytest.mark.parametrize(("sender_s", "worker_s"), [(61, 0), (-61, 0), (0, 61), (0, -61), (61, -61)])
def test_a_delayed_job_runs_in_time(
    rabbit_yard: Callable[..., Any], run_worker: Any, sender_s: int, worker_s: int
) -> None:
    broker, ran_s = rabbit_yard(), list[float]()
    compare_clocks(broker)
    job = dramatiq.actor(lambda: ran_s.append(time.perf_counter()), broker=broker, queue_name="work", actor_name="job")

    with on_host(broker, off_s=sender_s):
        sent_s = time.perf_counter()
        job.send_with_options(delay=DELAY_MS)
    with on_host(broker, off_s=worker_s), run_worker(broker=broker):
        wait_for(lambda: ran_s)

    # Differences of less than a second are tolerated.
    assert ran_s[0] - sent_s > DELAY_MS / 1000 - 1
