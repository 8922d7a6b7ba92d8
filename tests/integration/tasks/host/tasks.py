"""Tasks as a project that runs them with ``django-tasks-db`` writes them. Nothing here knows of another backend."""

import asyncio
import os
import signal
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any

import django
from django.db import connection

# As a host has them, one or the other: tasks are found by this line.
if django.VERSION >= (6,):
    from django.tasks import TaskContext, task
    from django.tasks.signals import task_enqueued, task_finished, task_started
else:
    from django_tasks import TaskContext, task
    from django_tasks.signals import task_enqueued, task_finished, task_started

NOTES = Path(os.environ.get("TASK_NOTES", "/dev/null"))


def note(*words: object) -> None:
    """Append a line that other processes read."""
    with NOTES.open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


class OutOfPaper(Exception):
    """The printer's own error."""


@task
def add(left: int, right: int = 1) -> int:
    return left + right


@task()
def echo(*values: Any, **named: Any) -> Any:
    return {"values": values, "named": named}


@task
def nothing() -> None:
    """Return nothing."""


@task(takes_context=True)
def about(context: TaskContext, word: str) -> dict[str, Any]:
    """Return what a task may know of itself."""
    result = context.task_result
    return {
        "word": word,
        "attempt": context.attempt,
        "status": result.status,
        "args": result.args,
        "kwargs": result.kwargs,
        "has_id": bool(result.id),
        "has_start": result.started_at is not None and result.last_attempted_at is not None,
        "workers": len(result.worker_ids),
        "path": result.task.module_path,
        "queue": result.task.queue_name,
        "priority": result.task.priority,
    }


@task
async def sleep_and_add(left: int, right: int) -> int:
    """Return a sum after a while."""
    await asyncio.sleep(0.01)
    return left + right


@task
def fail(why: str) -> None:
    """Raise an error of this project."""
    raise OutOfPaper(why)


@task
def divide(by: int) -> float:
    """Raise an error of Python's, when asked to."""
    return 1 / by


@task
def unserialisable() -> Any:
    """Return what is not JSON."""
    return object()


@task
def count_rows() -> int:
    """Ask the database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 42")
        return int(cursor.fetchone()[0])


@task
def typed(day: date, words: list[str], *, at: datetime | None = None) -> list[str]:
    """Return the types of what came, whatever the annotations say."""
    return [type(value).__name__ for value in (day, words, at)]


@task(priority=-50)
def write_down(word: str) -> None:
    note("ran", word)


@task(takes_context=True)
def fail_twice(context: TaskContext, word: str) -> int:
    """Succeed the third time."""
    note("attempt", word, context.attempt, len(context.task_result.errors))
    if context.attempt < 3:
        raise OutOfPaper(f"attempt {context.attempt}")
    return context.attempt


@task
def die_once(word: str) -> str:
    """End the process that runs it, the first time."""
    marker = Path(f"{NOTES}-{word}")
    if not marker.exists():
        marker.touch()
        note("dies", word)
        os.kill(os.getpid(), signal.SIGKILL)
    return word


@task
def die(word: str) -> None:
    """End the process that runs it, each time."""
    note("dies", word)
    os.kill(os.getpid(), signal.SIGKILL)


@task
def wait_for_file(name: str) -> str:
    note("waits", name)
    deadline = time.monotonic() + 60
    while not Path(name).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return name


def _noted(word: str) -> Any:
    def receive(sender: type, task_result: Any, **kwargs: Any) -> None:
        note(
            "signal", word, getattr(sender, "__name__", "an instance"), task_result.task.name, task_result.status,
            task_result.id,
        )  # fmt: skip

    return receive


RECEIVERS = {
    signal: _noted(word)
    for signal, word in ((task_enqueued, "enqueued"), (task_started, "started"), (task_finished, "finished"))
}
for each, receiver in RECEIVERS.items():
    each.connect(receiver)
