"""No library: a client that waits in a blocking move, the lower bound for starting a task that is not lost.

How long it takes is the machine's doing: three processes that sleep are woken, one after the other.
"""

import json
import os
from typing import Any

import redis

from benchmarks.records import run

client = redis.Redis.from_url(os.environ["BENCH_URL"], socket_timeout=None)


def enqueue(task: dict[str, Any]) -> None:
    """Enqueue one."""
    client.rpush("waiting", json.dumps(task))


def worker_command(slots: int) -> list[str]:
    """Start a single waiter, regardless of slots."""
    return ["-m", "benchmarks.peers.raw_move"]


def wait() -> None:
    """Move a task to the list of running tasks, run it, remove it."""
    while True:
        task = client.blmove("waiting", "held", 0)
        run(json.loads(task))
        client.lrem("held", 1, task)


if __name__ == "__main__":
    wait()
