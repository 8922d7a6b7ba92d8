"""Taskiq on a list, from which a task is popped before it runs, or on a stream, in which it stays until it is done."""

import os
from typing import Any

from taskiq_redis import ListQueueBroker, RedisStreamBroker

from benchmarks.records import run_async

BROKERS = {"list": ListQueueBroker, "stream": RedisStreamBroker}
broker = BROKERS[os.environ["BENCH_KIND"]](os.environ["BENCH_URL"], queue_name="bench")


@broker.task(task_name="work")
async def work(task: dict[str, Any]) -> None:
    """The task."""
    await run_async(task)


async def start() -> None:
    """Connect the sender."""
    await broker.startup()


async def enqueue(task: dict[str, Any]) -> None:
    """Enqueue one."""
    await work.kiq(task)


def worker_command(slots: int) -> list[str]:
    """Start one process of ``slots`` coroutines."""
    arguments = ["--workers", "1", "--max-async-tasks", str(slots), "--log-level", "WARNING"]
    return ["-m", "taskiq", "worker", "benchmarks.peers.taskiq:broker", *arguments]
