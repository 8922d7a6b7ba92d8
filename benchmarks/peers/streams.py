"""dramatiq-redis-streams, a third-party broker for Dramatiq, from a checkout of its sources."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.insert(0, os.environ["BENCH_STREAMS_CHECKOUT"] + "/src")

import dramatiq
from dramatiq_redis_streams import StreamsBroker

from benchmarks.records import run

broker = StreamsBroker(url=os.environ["BENCH_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="bench")
def work(task: dict[str, float]) -> None:
    """The task."""
    run(task)


def enqueue(task: dict[str, Any]) -> None:
    """Enqueue one."""
    work.send(task)


def worker_command(slots: int) -> list[str]:
    """Start a worker of so many threads."""
    return ["-m", "benchmarks.peers.dramatiq_worker", "streams", str(slots)]
