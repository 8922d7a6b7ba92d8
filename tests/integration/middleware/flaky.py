"""A job that fails once."""

from __future__ import annotations

from typing import Any

import dramatiq

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from tests.waiting import wait_for


def runs_until_success(broker: RedisBroker, run_worker: Any, **options: Any) -> int:
    """Run a job that fails once until it has succeeded, and return how often it ran.

    Args:
        options: Of its actor.
    """
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", **options)
    def flaky() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("once")

    with run_worker(broker=broker):
        job_id = flaky.send().message_id
        wait_for(lambda: facilities(broker).records.read(job_id).state == "succeeded")
    return len(runs)
