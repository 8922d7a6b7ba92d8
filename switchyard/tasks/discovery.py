"""Discovery of tasks: modules with ``@task``, imported in every process of the yard when it starts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import dramatiq
from django.apps import AppConfig, apps

from switchyard.conf import switchyard_settings
from switchyard.tasks.backend import SwitchyardBackend
from switchyard.tasks.task_actors import actor_of, prepare
from switchyard.tasks.task_api import DISCOVERED, TASKS, InvalidTask, Task, task_at, task_backends

IMPORTED = re.compile(rb"^\s*(?:from|import)\s+django[._]tasks\b", re.MULTILINE)
DECLARED = re.compile(rb"^@(?:\w+\.)?task\b|=\s*(?:\w+\.)?task\(", re.MULTILINE)
PASSED_OVER = frozenset({"site-packages", "tests", "migrations"})


def declare_tasks() -> None:
    """Import the modules with tasks and declare an actor for each, where ``TASKS`` names our backend."""
    ours = [backend for backend in task_backends.all() if isinstance(backend, SwitchyardBackend)]
    if not ours:
        return
    names = [name for app in apps.get_app_configs() for name in sorted(_modules_of(app))]
    modules = [import_module(name) for name in (*names, *(name for backend in ours for name in backend.modules))]
    broker = dramatiq.get_broker()
    prepare(broker)
    _register_others(modules, ours[0])
    for task in TASKS.values():
        backend = next((backend for backend in ours if backend.alias == task.backend), ours[0])
        actor_of(task, broker, **backend.actor_options)
    DISCOVERED.update(TASKS)  # workers import the same modules


def _modules_of(app: AppConfig) -> Iterator[str]:
    """Yield the modules of an app that declare tasks: ``tasks``, and any other file of the project's own code."""
    folder, base = Path(app.path), switchyard_settings().base_dir
    own = folder.is_relative_to(base) and PASSED_OVER.isdisjoint(folder.relative_to(base).parts)
    files = folder.rglob("*.py") if own else [folder / "tasks.py", *(folder / "tasks").rglob("*.py")]
    inner = [Path(other.path) for other in apps.get_app_configs() if Path(other.path) != folder]
    for file in files:
        below = file.relative_to(folder)
        if not PASSED_OVER.isdisjoint(below.parts) or any(part.startswith("test_") for part in below.parts):
            continue
        if any(other.is_relative_to(folder) and file.is_relative_to(other) for other in inner):
            continue
        source = file.read_bytes() if file.is_file() else b""
        if IMPORTED.search(source) and DECLARED.search(source):
            parts = below.with_suffix("").parts
            yield ".".join((app.name, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def _register_others(modules: list[ModuleType], backend: SwitchyardBackend) -> None:
    """Register tasks of other backends as well: ``using(backend=…)`` may send them to ours."""
    for value in [value for module in modules for value in vars(module).values()]:
        # isinstance would make what a lazy object of the project stands for.
        if issubclass(type(value), Task) and task_at(value.module_path) is None:
            with contextlib.suppress(InvalidTask):  # nobody can send it to this backend either
                value.using(backend=backend.alias)
