"""Tasks by their import path. A worker runs these and nothing else: a message names a task, it imports none."""

from __future__ import annotations

from typing import Any

from switchyard.tasks.task_api import Task

_tasks: dict[str, Task[..., Any]] = {}
_known_to_workers: set[str] = set()


def register(task: Task[..., Any]) -> None:
    """Keep a task; the first one of a function stays, so that ``using()`` changes nothing."""
    known = _tasks.get(task.module_path)
    if known is None or known.func is not task.func:
        _tasks[task.module_path] = task


def task_at(path: str) -> Task[..., Any] | None:
    return _tasks.get(path)


def all_tasks() -> list[Task[..., Any]]:
    return list(_tasks.values())


def mark_discovered() -> None:
    """Note that every task declared until now is declared in workers as well: they import the same modules."""
    _known_to_workers.update(_tasks)


def is_discovered(task: Task[..., Any]) -> bool:
    """Return whether workers declare a task when they start."""
    return task.module_path in _known_to_workers
