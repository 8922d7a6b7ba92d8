"""Celery with late acknowledgement, so that a task stays on the server until it is done; results only for groups."""

import os
from typing import Any

from celery import Celery
from celery import group as celery_group

from benchmarks.records import run

RESULTS = bool(os.environ.get("BENCH_RESULTS"))
app = Celery("bench", broker=os.environ["BENCH_URL"], backend=os.environ["BENCH_URL"] if RESULTS else None)
app.conf.task_default_queue = "bench"
app.conf.broker_connection_retry_on_startup = True


@app.task(name="work", acks_late=True, ignore_result=not RESULTS)
def work(task: dict[str, float]) -> None:
    """The task."""
    run(task)


def enqueue(task: dict[str, Any]) -> None:
    """Enqueue one."""
    work.delay(task)


def group(tasks: list[dict[str, Any]]) -> None:
    """Run a group and wait for the result of each."""
    celery_group(work.s(task) for task in tasks)().get(timeout=300)


def worker_command(slots: int) -> list[str]:
    """Start a worker of ``slots`` processes or threads."""
    pool = os.environ["BENCH_POOL"]
    app_name = "benchmarks.peers.celery"
    return ["-m", "celery", "-A", app_name, "worker", "-P", pool, "-c", str(slots), "--loglevel", "WARNING"]
