"""Results of tasks, made from the message that runs or from the record of its job."""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from types import ModuleType
from typing import Any, ClassVar, Final, NamedTuple

import dramatiq.errors
import dramatiq.middleware
from django.conf import settings
from django.utils import timezone
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.interface import facilities
from switchyard.broker.queue import codec
from switchyard.broker.stores.job_record import Job, number_or_none
from switchyard.middleware import crashes, errors
from switchyard.middleware.errors import Cancelled, PermanentFailure
from switchyard.middleware.options import rule_of_message, takes
from switchyard.tasks.task_api import (
    TASK_MAX_PRIORITY,
    TASK_MIN_PRIORITY,
    InvalidTask,
    Task,
    TaskError,
    TaskResult,
    TaskResultStatus,
    task_at,
    task_backends,
)

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
        if exception is None or task_at(message.actor_name) is None:
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
