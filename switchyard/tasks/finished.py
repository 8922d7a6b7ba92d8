"""Signal ``task_finished``, sent by the worker in which a task succeeded or was given up."""

from __future__ import annotations

from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.middleware.errors import Cancelled
from switchyard.middleware.outcomes import outcome_of, text_of
from switchyard.tasks.attempts import path_of, worker_of
from switchyard.tasks.registry import task_at
from switchyard.tasks.results import make_result
from switchyard.tasks.task_api import TaskError, task_finished


class FinishedTasks(Middleware):
    """Middleware that sends ``task_finished`` once a task has succeeded or failed for good; not for a retry.

    Listed before the middleware that decides and records the outcome. What a receiver raises is logged.
    """

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Send the signal for a task that ran."""
        self._finish(broker, message, exception, result)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Send the signal for a task that was cancelled before it started, or that is too old."""
        if outcome_of(message).kind in ("cancelled", "expired"):
            self._finish(broker, message, None, None)

    def _finish(self, broker: Broker, message: MessageProxy, exception: BaseException | None, value: Any) -> None:
        task = task_at(message.actor_name)
        outcome = outcome_of(message, exception)
        if task is None or outcome.kind in ("retried", "deferred"):
            return
        cause = outcome.exception or exception
        error = TaskError(
            exception_class_path=path_of(Cancelled if cause is None else type(cause)),
            traceback="" if cause is None else text_of(cause),
        )
        result = make_result(
            task,
            job_id=message.message_id,
            state=outcome.kind,
            queue=facilities(broker).yard.queue_of(message.queue_name.removesuffix(".DQ")).name,
            options=message.options,
            args=message.args,
            kwargs=message.kwargs,
            worker=worker_of(broker),
            enqueued_ms=message.options.get("enqueued_at", message.message_timestamp),
            started_ms=getattr(message, "started_ms", None),
            finished_ms=now_ms(),
            error=error,
            value=value,
        )
        sender = type(result.task.get_backend())
        if cause is None:
            task_finished.send(sender, task_result=result)
            return
        # Receivers log the exception that is being handled; its traceback stays as the task left it.
        trace = cause.__traceback__
        try:
            raise cause
        except BaseException:  # noqa: BLE001  it was handled; it is shown to the receivers
            task_finished.send(sender, task_result=result)
        finally:
            cause.__traceback__ = trace
