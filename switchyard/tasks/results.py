"""Results of tasks, made from the message that runs or from the record of its job."""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Mapping, Sequence
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


def result_of_record(task: Task[..., Any], job: Job) -> TaskResult[..., Any]:
    error = None
    if job.error is not None:
        error = TaskError(exception_class_path=_path_of_name(job.error["type"]), traceback=job.error["message"])
    elif job.state == "cancelled":
        error = TaskError(exception_class_path=path_of(Cancelled), traceback="")
    return make_result(
        task, job_id=job.id, state=job.state, queue=job.queue, options=job.options, args=job.args, kwargs=job.kwargs,
        worker=job.worker, enqueued_ms=job.enqueued_at, started_ms=job.started_at, finished_ms=job.finished_at,
        error=error, value=job.result,
    )  # fmt: skip


def make_result(
    task: Task[..., Any],
    *,
    job_id: str,
    state: str,
    queue: str,
    options: Mapping[str, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    worker: str = "",
    enqueued_ms: int | None = None,
    started_ms: int | None = None,
    finished_ms: int | None = None,
    error: TaskError | None = None,
    value: Any = None,
) -> TaskResult[..., Any]:
    """Return a result of a job in a state, of a message with options.

    Args:
        task: As it was declared; the result's own is that with the priority, queue and time of the message.
        worker, started_ms: Of the last attempt.
        error: Of a failure that no attempt noted, such as a crash.
        value: Return value, where the task succeeded.
    """
    failed, status = failed_attempts(options), STATUS_OF[state]
    as_sent = task_as_sent(task, queue, options)
    workers = [each.worker for each in failed]
    if status == TaskResultStatus.SUCCESSFUL or status == TaskResultStatus.RUNNING:
        workers.append(worker)
    raised = [TaskError(exception_class_path=each.error, traceback=each.traceback) for each in failed]
    if status == TaskResultStatus.FAILED and not raised and error is not None:
        raised.append(error)
    if started_ms is None and failed:
        started_ms = failed[-1].started_ms
    is_finished = status in (TaskResultStatus.FAILED, TaskResultStatus.SUCCESSFUL)
    result: TaskResult[..., Any] = TaskResult(
        task=as_sent, id=job_id, status=status, enqueued_at=moment(enqueued_ms),
        started_at=moment(failed[0].started_ms if failed else started_ms), last_attempted_at=moment(started_ms),
        finished_at=moment(finished_ms) if is_finished else None,
        args=list(args), kwargs=dict(kwargs), backend=as_sent.backend, errors=raised, worker_ids=workers,
    )  # fmt: skip
    object.__setattr__(result, "_return_value", value if status == TaskResultStatus.SUCCESSFUL else None)
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
