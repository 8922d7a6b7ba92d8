"""streaq, with JSON."""

from __future__ import annotations

import json
import os
from typing import Any

from streaq import Worker

from benchmarks.records import run_async

worker: Worker[None] = Worker(
    redis_url=os.environ["BENCH_URL"],
    concurrency=int(os.environ.get("BENCH_SLOTS", "8")),
    serializer=json.dumps,
    deserializer=json.loads,
)


@worker.task
async def work(task: dict[str, Any]) -> None:
    """The task."""
    await run_async(task)


async def start() -> None:
    """Connect the sender."""
    await worker.__aenter__()


async def enqueue(task: dict[str, Any]) -> None:
    """Enqueue one."""
    await work.enqueue(task)


async def enqueue_many(tasks: list[dict[str, Any]]) -> None:
    """Enqueue many."""
    await worker.enqueue_many([work.enqueue(task) for task in tasks])


def worker_command(slots: int) -> list[str]:
    """Start a worker of ``slots`` coroutines, its logging left alone."""
    return ["-c", "from benchmarks.peers.streaq import worker; worker.run_sync()"]
