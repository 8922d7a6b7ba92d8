"""Huey with threads and a blocking read. A task is removed from the server before it runs; arguments are pickled."""

import os
from typing import Any

from huey import RedisHuey

from benchmarks.records import run

app = RedisHuey("bench", url=os.environ["BENCH_URL"])


@app.task()
def work(task: dict[str, float]) -> None:
    """The task."""
    run(task)


def enqueue(task: dict[str, Any]) -> None:
    """Enqueue one."""
    work(task)


def worker_command(slots: int) -> list[str]:
    """Start a consumer of ``slots`` threads."""
    return ["-m", "huey.bin.huey_consumer", "benchmarks.peers.huey.app", "-w", str(slots), "-k", "thread", "-q"]
