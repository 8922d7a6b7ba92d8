"""RQ with its JSON serializer: a pool of worker processes, with or without a fork for each job."""

import os
from typing import Any

from redis import Redis
from rq import Queue

from benchmarks.records import run

queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_URL"]), serializer="json")


def enqueue(task: dict[str, Any]) -> None:
    """Enqueue one."""
    queue.enqueue(run, task)


def enqueue_many(tasks: list[dict[str, Any]]) -> None:
    """Enqueue many."""
    queue.enqueue_many([Queue.prepare_data(run, args=(task,)) for task in tasks])


def worker_command(slots: int) -> list[str]:
    """Start a pool of ``slots`` processes."""
    chosen = ["-w", os.environ["BENCH_WORKER_CLASS"], "-S", "json", "-u", os.environ["BENCH_URL"]]
    return ["-m", "rq.cli", "worker-pool", "-n", str(slots), *chosen, "--logging-level", "WARNING", "bench"]
