"""Names of Django's task API, actors of tasks, one for each task under its import path, and results of tasks.

A result is made from the message that runs, or from the record of its job.
"""

from __future__ import annotations

import builtins
import inspect
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import wraps
from importlib.util import find_spec
from inspect import iscoroutinefunction
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import dramatiq.errors
import dramatiq.middleware
from django.conf import settings
from django.utils import timezone
from dramatiq.actor import Actor
from dramatiq.asyncio import async_to_sync, get_event_loop_thread
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import CurrentMessage, Middleware

from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.interface import facilities
from switchyard.broker.queue import codec
from switchyard.broker.stores.job_record import Job, number_or_none
from switchyard.broker.stores.result_stores import RECORD_LIMIT_BYTES
from switchyard.middleware import crashes, errors
from switchyard.middleware.envelope import ready_since
from switchyard.middleware.errors import Cancelled, PermanentFailure
from switchyard.middleware.options import rule_of_message, takes
from switchyard.middleware.outcomes import outcome_of, text_of
from switchyard.middleware.retries import Retries
from switchyard.middleware.status import Status

if TYPE_CHECKING or find_spec("django.tasks") is not None:
    from django.tasks import task_backends
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import (
        TASK_MAX_PRIORITY,
        TASK_MIN_PRIORITY,
        Task,
        TaskContext,
        TaskError,
        TaskResult,
        TaskResultStatus,
    )
    from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json
else:
    try:
        from django_tasks import task_backends
        from django_tasks.backends.base import BaseTaskBackend
        from django_tasks.base import (
            TASK_MAX_PRIORITY,
            TASK_MIN_PRIORITY,
            Task,
            TaskContext,
            TaskError,
            TaskResult,
            TaskResultStatus,
        )
        from django_tasks.exceptions import InvalidTaskError as InvalidTask
        from django_tasks.exceptions import TaskResultDoesNotExist
        from django_tasks.signals import task_enqueued, task_finished, task_started
        from django_tasks.utils import normalize_json
    except ModuleNotFoundError as error:
        if error.name == "django_tasks":
            error.add_note("Django before 6 has no task API: install django-tasks, or the extra tasks")
        raise

__all__ = [
    "TASK_MAX_PRIORITY", "TASK_MIN_PRIORITY", "BaseTaskBackend", "InvalidTask", "Task", "TaskContext", "TaskError",
    "TaskResult", "TaskResultDoesNotExist", "TaskResultStatus", "normalize_json", "task_backends", "task_enqueued",
    "task_finished", "task_started",
]  # fmt: skip


# Tasks by their import path. A worker runs these and nothing else: a message names a task, it imports none.
TASKS: dict[str, Task[..., Any]] = {}
# Paths of those that workers declare when they start as well.
DISCOVERED: set[str] = set()


OPTION: Final = "task"
# Of the last attempts only: the message carries them.
TRACEBACKS: Final = 3
TRACEBACK_CHARACTERS: Final = 4_000


class ResultRefused(PermanentFailure):
    """A task ended and returned what cannot be kept; its cause says why. A retry would do the work again."""

    def __init__(self, path: str, fact: str) -> None:
        super().__init__(f"task {path}: {fact}; return what JSON can hold, at most 1 MiB of it")


class FailedAttempt(NamedTuple):
    """An attempt of a task that raised: the path of the exception's class, and the end of the traceback.

    The traceback is empty for all but the last attempts.
    """

    worker: str
    started_ms: int
    error: str
    traceback: str


class TaskAttempts(Middleware):
    """Middleware that notes a task's failure in its message, before the message is retried or given up.

    Listed behind :class:`switchyard.middleware.retries.Retries`, which moves the message: after-hooks run from last to
    first.
    """

    option_rules: ClassVar = (
        rule_of_message(
            OPTION, takes(lambda value: isinstance(value, dict), "leave it out, the task's backend writes it")
        ),
    )

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Add the attempt to the message's option, and to the body that its record keeps."""
        if exception is None or message.actor_name not in TASKS:
            return
        cause = (exception.__cause__ or exception) if isinstance(exception, ResultRefused) else exception
        text = "".join(traceback.format_exception(cause)).encode("utf-8", "backslashreplace").decode()
        text = text if len(text) <= TRACEBACK_CHARACTERS else f"…{text[-TRACEBACK_CHARACTERS:]}"
        started_ms = getattr(message, "started_ms", None) or now_ms()
        failed = FailedAttempt(worker_of(broker), started_ms, path_of(type(cause)), text)
        earlier = failed_attempts(message.options)
        first_kept = len(earlier) + 1 - TRACEBACKS
        earlier = [each if at >= first_kept else each._replace(traceback="") for at, each in enumerate(earlier)]
        # Another object: the message that was received is compared and encoded elsewhere.
        message.options[OPTION] = {
            **fields_of(message.options),
            "attempts": [list(each) for each in (*earlier, failed)],
        }
        if isinstance(message, HeldMessage):
            message.body = codec.encode(message, grown=True)  # type: ignore[arg-type]


def fields_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the option holds; nothing of one that another sender wrote wrongly."""
    found = options.get(OPTION)
    return found if isinstance(found, dict) else {}


def failed_attempts(options: Mapping[str, Any]) -> list[FailedAttempt]:
    found = fields_of(options).get("attempts")
    return [FailedAttempt(*each) for each in found if _is_attempt(each)] if isinstance(found, list) else []


def worker_of(broker: Broker) -> str:
    return facilities(broker).barrier.worker_place.worker


def path_of(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_attempt(value: Any) -> bool:
    kinds = [str, int, str, str]
    has_fields = isinstance(value, list | tuple) and [type(each) for each in value] == kinds
    return has_fields and number_or_none(value[1]) is not None


STATUS_OF: Final = {
    **dict.fromkeys(("scheduled", "queued", "retrying"), TaskResultStatus.READY),
    "running": TaskResultStatus.RUNNING,
    "succeeded": TaskResultStatus.SUCCESSFUL,
    **dict.fromkeys(("cancelled", "expired", "dead"), TaskResultStatus.FAILED),
}
# Where the class of a recorded failure is looked for: records keep its name only.
MODULES: Final[tuple[ModuleType, ...]] = (builtins, errors, crashes, dramatiq.errors, dramatiq.middleware)


def result_of_job(task: Task[..., Any], job: Job) -> TaskResult[..., Any]:
    """Return the result of a task whose job stands so; its own task has the priority, queue and time of the message.

    The job's error is that of a failure which no attempt noted, such as a crash.
    """
    failed, status = failed_attempts(job.options), STATUS_OF[job.state]
    as_sent = task_as_sent(task, job.queue, job.options)
    workers = [each.worker for each in failed]
    if status in (TaskResultStatus.SUCCESSFUL, TaskResultStatus.RUNNING):
        workers.append(job.worker)
    raised = [TaskError(exception_class_path=each.error, traceback=each.traceback) for each in failed]
    if status == TaskResultStatus.FAILED and not raised and (job.error is not None or job.state == "cancelled"):
        error = job.error or {"type": path_of(Cancelled), "message": ""}
        raised.append(TaskError(exception_class_path=_path_of_name(error["type"]), traceback=error["message"]))
    started_at = failed[-1].started_ms if job.started_at is None and failed else job.started_at
    is_finished = status in (TaskResultStatus.FAILED, TaskResultStatus.SUCCESSFUL)
    result: TaskResult[..., Any] = TaskResult(
        task=as_sent, id=job.id, status=status, enqueued_at=moment(job.enqueued_at),
        started_at=moment(failed[0].started_ms if failed else started_at), last_attempted_at=moment(started_at),
        finished_at=moment(job.finished_at) if is_finished else None,
        args=list(job.args), kwargs=dict(job.kwargs), backend=as_sent.backend, errors=raised, worker_ids=workers,
    )  # fmt: skip
    object.__setattr__(result, "_return_value", job.result if status == TaskResultStatus.SUCCESSFUL else None)
    return result


def task_as_sent(task: Task[..., Any], queue: str, options: Mapping[str, Any]) -> Task[..., Any]:
    """Return a task with the priority, queue, time and backend of its message."""
    sent, changes = fields_of(options), {"queue_name": queue}
    if isinstance(alias := sent.get("backend"), str) and alias in task_backends.settings:
        changes["backend"] = alias
    found: dict[str, Any] = {**changes, "run_after": moment(number_or_none(sent.get("run_after")))}
    if type(priority := options.get("priority")) is int:
        found["priority"] = min(max(-priority, TASK_MIN_PRIORITY), TASK_MAX_PRIORITY)
    if all(getattr(task, name) == value for name, value in found.items()):
        return task
    try:
        return replace(task, **found)
    except InvalidTask:  # the backend was configured otherwise when it was sent
        return task


def moment(at_ms: int | None) -> datetime | None:
    """Return a time as Django has it: aware with ``USE_TZ``, else in the local time zone."""
    if at_ms is None:
        return None
    at = datetime_of(at_ms)
    return at if settings.USE_TZ else timezone.make_naive(at)


def milliseconds(at: datetime) -> int:
    """Return a time in ms since the epoch; a naive one is local."""
    aware = at if timezone.is_aware(at) else timezone.make_aware(at)
    return round(aware.timestamp() * 1000)


def _path_of_name(name: str) -> str:
    found = next((getattr(module, name) for module in MODULES if isinstance(getattr(module, name, None), type)), None)
    return name if found is None else path_of(found)


def prepare(broker: Broker) -> None:
    """Add the middleware of tasks to a broker, once."""
    if any(isinstance(entry, TaskAttempts) for entry in broker.middleware):
        return
    broker.add_middleware(TaskAttempts(), after=Retries)
    broker.add_middleware(FinishedTasks(), before=Status)


def actor_of(task: Task[..., Any], broker: Broker, **options: Any) -> Actor[..., Any]:
    """Return the actor that runs a task; with these options it is declared with the broker when it is not."""
    prepare(broker)
    known = broker.actors.get(task.module_path)
    if known is not None:
        return known
    return Actor(
        _function_of(task, broker),
        broker=broker,
        actor_name=task.module_path,
        queue_name=task.queue_name,
        priority=-task.priority,
        options={**options, "store_results": True},
    )


def _function_of(task: Task[..., Any], broker: Broker) -> Callable[..., Any]:
    """Return a function with the name, place and parameters of a task's, that runs the task."""

    @wraps(task.func, ("__module__", "__name__", "__qualname__", "__doc__"), ())
    def function(*args: Any, **kwargs: Any) -> Any:
        return run_task(task, broker, args, kwargs)

    signature = inspect.signature(task.func)
    # Without annotations: a task gets its arguments as JSON has them, whatever it says of them.
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    if task.takes_context:
        parameters = parameters[1:]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def run_task(task: Task[..., Any], broker: Broker, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a task in a worker; return what it returned, as JSON has it, or ``ResultRefused`` where that cannot be."""
    message = CurrentMessage.get_current_message()
    if message is None:
        raise RuntimeError(f"task {task.module_path}: its actor runs in workers only; call {task.name}.call(...)")
    started_at = getattr(message, "started_ms", None) or ready_since(message)
    result = _result_of(task, broker, message, state="running", started_at=started_at)
    task_started.send(type(result.task.get_backend()), task_result=result)
    if task.takes_context:
        args = (TaskContext(task_result=result), *args)
    if iscoroutinefunction(task.func) and get_event_loop_thread() is not None:
        value = async_to_sync(task.func)(*args, **kwargs)  # a time limit cancels it
    else:
        value = task.call(*args, **kwargs)
    try:
        value = normalize_json(value)
        length = len(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as cause:
        raise ResultRefused(task.module_path, str(cause)) from cause
    if length > RECORD_LIMIT_BYTES:
        raise ResultRefused(task.module_path, f"its return value has {length} characters")
    return value


def _result_of(task: Task[..., Any], broker: Broker, message: Any, **known: Any) -> TaskResult[..., Any]:
    """Return the result of a task whose message this worker has."""
    job = Job(
        message.message_id, queue=facilities(broker).yard.queue_of(message.queue_name.removesuffix(".DQ")).name,
        options=message.options, worker=worker_of(broker), args=message.args, kwargs=message.kwargs,
        enqueued_at=message.options.get("enqueued_at", message.message_timestamp), **known,
    )  # fmt: skip
    return result_of_job(task, job)


class FinishedTasks(Middleware):
    """Middleware that sends ``task_finished`` once a task has succeeded or failed for good; not for a retry.

    Listed before the middleware that decides and records the outcome. What a receiver raises is logged.
    """

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        task = TASKS.get(message.actor_name)
        outcome = outcome_of(message, exception)
        if task is None or outcome.kind in ("retried", "deferred"):
            return
        cause = outcome.exception or exception
        error = {
            "type": path_of(Cancelled if cause is None else type(cause)),
            "message": "" if cause is None else text_of(cause),
        }
        times = {"started_at": getattr(message, "started_ms", None), "finished_at": now_ms()}
        ended = _result_of(task, broker, message, state=outcome.kind, **times, error=error, result=result)
        sender = type(ended.task.get_backend())
        if cause is None:
            task_finished.send(sender, task_result=ended)
            return
        # Receivers log the exception that is being handled; its traceback stays as the task left it.
        trace = cause.__traceback__
        try:
            raise cause
        except BaseException:  # noqa: BLE001  it was handled; it is shown to the receivers
            task_finished.send(sender, task_result=ended)
        finally:
            cause.__traceback__ = trace

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Send the signal for a task that was cancelled before it started, or that is too old."""
        if outcome_of(message).kind in ("cancelled", "expired"):
            self.after_process_message(broker, message)
