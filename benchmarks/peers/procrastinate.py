"""Procrastinate on PostgreSQL, with stock settings."""

import os
from typing import Any

from procrastinate import App, PsycopgConnector

from benchmarks.records import run_async

app = App(
    connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"]), import_paths=["benchmarks.peers.procrastinate"]
)


@app.task(name="work", queue="bench")
async def work(task: dict[str, Any]) -> None:
    """The task."""
    await run_async(task)


async def start() -> None:
    """Connect the sender, and make the tables."""
    await app.open_async()
    await app.schema_manager.apply_schema_async()


async def enqueue(task: dict[str, Any]) -> None:
    """Enqueue one."""
    await work.defer_async(task=task)


async def enqueue_many(tasks: list[dict[str, Any]]) -> None:
    """Enqueue many."""
    await work.batch_defer_async(*({"task": task} for task in tasks))


def worker_command(slots: int) -> list[str]:
    """Start a worker of ``slots`` coroutines."""
    app_name = "benchmarks.peers.procrastinate.app"
    return ["-m", "procrastinate", "--log-level", "warning", "--app", app_name, "worker", "--concurrency", str(slots)]
