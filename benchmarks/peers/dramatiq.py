"""Stock Dramatiq: its own Redis broker as it comes."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.records import run

broker = RedisBroker(url=os.environ["BENCH_URL"])
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
    return ["-m", "benchmarks.peers.dramatiq_worker", "dramatiq", str(slots)]
