"""No library at all: a client that waits in a blocking move. Nothing that keeps its work can start a task sooner.

How long it takes is the machine's doing: three processes that sleep are woken, one after the other.
"""

from __future__ import annotations

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
    """Start a single waiter: there is nothing that would take turns."""
    return ["-m", "benchmarks.peers.raw_move"]


def wait() -> None:
    """Move a task to those that are worked on, run it, forget it."""
    while True:
        task = client.blmove("waiting", "held", 0)
        run(json.loads(task))
        client.lrem("held", 1, task)


if __name__ == "__main__":
    wait()
