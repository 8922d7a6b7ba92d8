"""The backend that ``TASKS`` names: validates tasks, enqueues them as jobs, reads their results.

Modules with ``@task`` are imported in every process of the yard when it starts.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import dramatiq
from django.apps import AppConfig, apps
from django.core import checks
from django.db import connections, transaction

from switchyard.broker.clock import now_ms
from switchyard.broker.stores.job_records import ENDED, Job
from switchyard.broker.topology import LONGEST_DELAY_MS
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.database import in_transaction
from switchyard.middleware.arguments import misfit
from switchyard.middleware.errors import ArgumentMismatch
from switchyard.tasks.task_actors import (
    DISCOVERED,
    TASKS,
    BaseTaskBackend,
    InvalidTask,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    actor_of,
    milliseconds,
    moment,
    normalize_json,
    prepare,
    result_of_job,
    task_backends,
    task_enqueued,
)

OPTIONS: Final = frozenset({"modules", "database", "actor_options"})
IMPORTED = re.compile(rb"^\s*(?:from|import)\s+django[._]tasks\b", re.MULTILINE)
DECLARED = re.compile(rb"^@(?:\w+\.)?task\b|=\s*(?:\w+\.)?task\(", re.MULTILINE)
PASSED_OVER = frozenset({"site-packages", "tests", "migrations"})


class SwitchyardBackend(BaseTaskBackend):
    """Run tasks as jobs of the yard.

    Keys of its entry in ``TASKS``: ``QUEUES`` (by default all of the topology); ``ENQUEUE_ON_COMMIT`` (default
    ``True``: inside a transaction a task is enqueued at its commit, and never when it is rolled back); ``OPTIONS`` with
    ``modules`` (more modules with tasks that workers import), ``database`` (alias of the transaction, default
    ``default``) and ``actor_options`` (options of the actors that run the tasks, such as ``max_retries``).
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.declared_queues = {queue.name for queue in declared_yard().queues}
        self.queues = set(params.get("QUEUES") or self.declared_queues)
        self.enqueue_on_commit = bool(params.get("ENQUEUE_ON_COMMIT", True))
        self.modules: tuple[str, ...] = tuple(self.options.get("modules", ()))
        self.database: str = self.options.get("database", "default")
        self.actor_options: dict[str, Any] = dict(self.options.get("actor_options", {}))

    def validate_task(self, task: Task[..., Any]) -> None:
        """Refuse a task that cannot run here, and keep any other, so that workers know it.

        Raises:
            InvalidTask: as every backend says, or its queue is not in the topology, or it is asynchronous and workers
                of its queue run greenlets.
        """
        usable = self.queues & self.declared_queues
        if task.queue_name not in usable:
            raise InvalidTask(
                f"Queue '{task.queue_name}' is not valid for backend; it has {', '.join(sorted(usable)) or 'none'}."
            )
        super().validate_task(task)
        if iscoroutinefunction(task.func) and (pools := _greenlet_pools(task.queue_name)):
            raise InvalidTask(
                f"Task function is asynchronous, and pool {', '.join(pools)} of queue '{task.queue_name}' runs "
                "greenlets; name a queue of threads or processes, or write it with def."
            )
        known = TASKS.get(task.module_path)
        if known is None or known.func is not task.func:  # the first one stays: ``using()`` changes nothing
            TASKS[task.module_path] = task

    def enqueue(  # type: ignore[override]  # the stubs bind both by one parameter
        self, task: Task[..., Any], args: Any, kwargs: Any
    ) -> TaskResult[..., Any]:
        """Enqueue a task: at the commit inside a transaction, else now, as ``ENQUEUE_ON_COMMIT`` says.

        The result's ``enqueued_at`` is ``None`` until then.

        Raises:
            InvalidTask: see :meth:`validate_task`; or no worker imports the task's module.
            TypeError, ValueError: an argument is no JSON.
            ArgumentMismatch: the arguments do not fit the task's function.
            BrokerUnavailable, QueueFull: it was not enqueued; at the commit, the commit stands. Not with the outbox.
        """
        from switchyard.jobs.services import enqueue_message, message_of  # models are not loaded when tasks are

        self.validate_task(task)
        given: Any = normalize_json({"args": args, "kwargs": kwargs})
        if task.module_path not in DISCOVERED:
            raise InvalidTask(
                f"Task {task.module_path} is not known to workers: they import tasks.py of each app, the project's own "
                f"files with @task, and OPTIONS['modules'] of the backend; add {task.func.__module__!r} there."
            )
        actor = actor_of(task, dramatiq.get_broker(), **self.actor_options)
        if (wrong := misfit(actor.fn, len(given["args"]), given["kwargs"].keys())) is not None:
            raise ArgumentMismatch(actor.actor_name, wrong, actor.fn)
        sent: dict[str, Any] = {"backend": self.alias}
        if task.run_after is not None:
            sent["run_after"] = milliseconds(task.run_after)
            if sent["run_after"] - now_ms() > LONGEST_DELAY_MS:
                raise InvalidTask(f"run_after is {task.run_after}, more than a year away.")
        on_commit = self.database if self.enqueue_on_commit else False
        message, look_up = message_of(
            actor, "", given["kwargs"], None, tuple(given["args"]),
            task=sent, priority=-task.priority, on_commit=on_commit,
        )  # fmt: skip
        message = message.copy(queue_name=task.queue_name)
        sent_job = Job(message.message_id, state="queued", queue=task.queue_name, options=message.options, **given)
        result = result_of_job(task, sent_job)

        def note_sent() -> None:
            object.__setattr__(result, "enqueued_at", moment(message.options.get("enqueued_at", now_ms())))
            task_enqueued.send(type(self), task_result=result)

        waits = self.enqueue_on_commit and in_transaction(connections[self.database])
        delay_ms = max(sent["run_after"] - now_ms(), 0) or None if "run_after" in sent else None
        enqueue_message(actor.broker, message, delay_ms, look_up=look_up)
        if waits:
            transaction.on_commit(note_sent, using=self.database)
        else:
            note_sent()
        return result

    def get_result(self, result_id: str) -> TaskResult[..., Any]:
        """Return a task's result, from the broker's record or from the history.

        Raises:
            TaskResultDoesNotExist: no job has the id, it is no task's, its record has been dropped, or it waits for
                the commit of a transaction.
            BrokerUnavailable: the broker did not answer.
            ResultStoreUnavailable: the store that has its return value did not answer.
        """
        from switchyard.history.queries import ended_job, find
        from switchyard.jobs.queries import find_job, is_job_id, with_result

        job_id = str(result_id).lower()
        record = with_result(find_job(job_id))
        if record is None and is_job_id(job_id) and (row := find(job_id)) is not None and row.state in ENDED:
            record = with_result(ended_job(row))
            if row.state == "succeeded" and not row.result and (record is None or record.result is None):
                raise TaskResultDoesNotExist(f"{result_id}: it succeeded, its return value is not kept any more")
        task = None if record is None else TASKS.get(record.actor)
        if record is None or task is None:
            raise TaskResultDoesNotExist(result_id)
        return result_of_job(task, record)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """E040: settings of the backend that cannot be used."""
        found = list(super().check(**kwargs))

        def add(fact: str, remedy: str) -> None:
            found.append(checks.Error(fact, hint=remedy, obj=f'TASKS["{self.alias}"]', id="switchyard.E040"))

        if missing := sorted(self.queues - self.declared_queues):
            there = ", ".join(sorted(self.declared_queues))
            add(f"QUEUES names {', '.join(missing)}, no queue", f"Declare it in the topology, which has {there}.")
        if unknown := sorted(self.options.keys() - OPTIONS):
            add(f"OPTIONS has {', '.join(unknown)}", f"There are {', '.join(sorted(OPTIONS))}.")
        if self.enqueue_on_commit and self.database not in connections.settings:
            remedy = 'Name one of DATABASES in OPTIONS["database"], or set ENQUEUE_ON_COMMIT to False.'
            add(f"enqueues at the commit of {self.database!r}, which DATABASES lacks", remedy)
        return found


def _greenlet_pools(queue: str) -> list[str]:
    yard = declared_yard()
    lanes = (queue, yard.queue_of(queue).retry_lane)
    return sorted({pool.name for lane in lanes for pool in yard.pools_of(lane) if pool.kind == "gevent"})


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
        if issubclass(type(value), Task) and value.module_path not in TASKS:
            with contextlib.suppress(InvalidTask):  # nobody can send it to this backend either
                value.using(backend=backend.alias)
