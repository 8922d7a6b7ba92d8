"""Switchyard's broker, with Dramatiq's default middleware, or with everything a yard puts around a task."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.middleware import default_middleware

from benchmarks.records import run
from broker.clients import connect
from broker.keys import Keys
from broker.redis_broker import RedisBroker

STACK = os.environ.get("BENCH_STACK") == "1"


def _plain() -> RedisBroker:
    middleware = [entry() for entry in default_middleware]
    return RedisBroker(connect(os.environ["BENCH_URL"]), Keys("bench"), middleware=middleware)


def _stack() -> RedisBroker:
    import logging

    import django

    from broker.topology import Pool, Queue, Yard

    django.setup()
    logging.getLogger().setLevel(logging.WARNING)
    from project.wiring import build_yard

    queue = Queue("bench", objective_ms=80, soft_limit_ms=60_000, hard_limit_ms=90_000)
    pool = Pool("bench", "threads", ("bench",), processes=1, slots=8)
    return build_yard(Yard((queue,), (pool,)), connect(os.environ["BENCH_URL"]), Keys("bench"))


broker = _stack() if STACK else _plain()


@dramatiq.actor(queue_name="bench", broker=broker)
def work(task: dict[str, float]) -> None:
    """The task."""
    run(task)


def enqueue(task: dict[str, Any]) -> None:
    """Enqueue one."""
    work.send(task)


def enqueue_many(tasks: list[dict[str, Any]]) -> None:
    """Enqueue many."""
    broker.enqueue_many([work.message(task) for task in tasks])


def worker_command(slots: int) -> list[str]:
    """Start a worker of so many threads."""
    return ["-m", "benchmarks.peers.dramatiq_worker", "switchyard", str(slots)]
