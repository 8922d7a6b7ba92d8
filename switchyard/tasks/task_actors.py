"""Actors of tasks: one for each task, under the task's import path."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from dramatiq.actor import Actor
from dramatiq.asyncio import async_to_sync, get_event_loop_thread
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import CurrentMessage, Middleware

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_record import Job
from switchyard.broker.stores.result_stores import RECORD_LIMIT_BYTES
from switchyard.middleware.envelope import ready_since
from switchyard.middleware.errors import Cancelled
from switchyard.middleware.outcomes import outcome_of, text_of
from switchyard.middleware.retries import Retries
from switchyard.middleware.status import Status
from switchyard.tasks.results import ResultRefused, TaskAttempts, path_of, result_of_job, worker_of
from switchyard.tasks.task_api import (
    Task,
    TaskContext,
    TaskResult,
    normalize_json,
    task_at,
    task_finished,
    task_started,
)


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
    run = partial(run_task, task, broker)

    def function(*args: Any, **kwargs: Any) -> Any:
        return run(args, kwargs)

    signature = inspect.signature(task.func)
    # Without annotations: a task gets its arguments as JSON has them, whatever it says of them.
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    if task.takes_context:
        parameters = parameters[1:]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__wrapped__ = task.func  # type: ignore[attr-defined]
    function.__module__, function.__qualname__ = task.func.__module__, task.func.__qualname__
    function.__name__, function.__doc__ = task.func.__name__, task.func.__doc__
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
        task = task_at(message.actor_name)
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
