"""Celery's ``shared_task``, declaring actors: ``from switchyard.compat.celery import shared_task``.

A task is an actor, named as its function. As in Celery a call runs it in place, and only ``self.retry`` and
``autoretry_for`` retry it: any other failure is a dead letter at once. Unlike there, a job whose worker dies runs
again. Workers import the module ``tasks`` of each app that imports this one.
"""

import sys
from collections.abc import Collection
from functools import partial
from types import MethodType
from typing import Any, Final, NamedTuple, NoReturn

import dramatiq
from django.utils import timezone
from dramatiq.middleware import CurrentMessage

from switchyard.middleware.errors import PermanentFailure, UnknownOption

# Options of Celery that this module does not have, and what to write instead of each.
DELAYS: Final = (
    "write default_retry_delay and max_retries, or declare @dramatiq.actor(min_backoff=..., max_backoff=...)"
)
INSTEAD: Final = {
    "acks_late": "leave it out: a job is acknowledged at its end",
    "base": "call from the task what its class does",
    "expires": "declare @dramatiq.actor(max_age=...), in milliseconds",
    "link": "declare @dramatiq.actor(on_success=...)",
    "link_error": "declare @dramatiq.actor(on_failure=...)",
    "priority": "declare @dramatiq.actor(priority=...), a lower one goes first",
    "rate_limit": "declare @dramatiq.actor(rate_limit=...), which counts over all workers",
    "reject_on_worker_lost": "leave it out: a job whose worker is lost runs again",
    "serializer": "leave it out: arguments are JSON",
    "soft_time_limit": "declare @dramatiq.actor(time_limit=...), in milliseconds",
    "task_id": "call switchyard.jobs.services.submit(task, ..., job_id=...)",
    "throws": "declare @dramatiq.actor(throws=...)",
    "time_limit": "declare @dramatiq.actor(time_limit=...), in milliseconds",
    **dict.fromkeys(("retry_backoff", "retry_backoff_max", "retry_jitter", "retry_kwargs"), DELAYS),
}
OTHERS: Final = "leave it out, or declare @dramatiq.actor with an option of its own"


class Retry(dramatiq.Retry):
    """The end of an attempt that ``self.retry`` repeats."""


class TaskJob(NamedTuple):
    """A job, as ``delay`` returns it and ``self.request`` names it: without an id where no worker runs the task."""

    id: str | None = None
    retries: int = 0


class Task(dramatiq.Actor[Any, Any]):
    """Actor with the calls of a Celery task. A function with ``bind=True`` gets it as ``self``."""

    MaxRetriesExceededError = PermanentFailure

    def __init__(self, function: Any, *, bind: bool, **given: Any) -> None:
        super().__init__(MethodType(function, self) if bind else function, **given)
        self.max_retries = self.options["max_retries"]

    @property
    def request(self) -> TaskJob:
        """The job that this thread runs."""
        message: Any = CurrentMessage.get_current_message()
        is_own = message is not None and message.actor_name == self.actor_name
        return TaskJob(message.message_id, message.options.get("retries", 0)) if is_own else TaskJob()

    def delay(self, *args: Any, **kwargs: Any) -> TaskJob:
        return self.apply_async(args, kwargs)

    def apply_async(self, args: Any = (), kwargs: Any = None, *, queue: str | None = None, **when: Any) -> TaskJob:
        """Enqueue a job.

        Args:
            queue: In place of the task's own.
            when: ``countdown``, the seconds until it may start, or ``eta``, the time.

        Raises:
            UnknownOption: another option of Celery.
        """
        message = self.message(*(args or ()), **(kwargs or {})).copy(queue_name=queue or self.queue_name)
        return TaskJob(self.broker.enqueue(message, delay=_delay_ms(self, **when)).message_id)

    def retry(self, *, exc: BaseException | None = None, max_retries: int | None = None, **when: Any) -> NoReturn:
        """End this attempt and have the job retried: raises ``Retry``.

        Args:
            exc: Raised when no retry is left, and where the task was called. By default that is
                ``MaxRetriesExceededError``, and the error that is being handled.
            max_retries: In place of the task's own.
            when: ``countdown`` or ``eta``; by default after the task's ``default_retry_delay``.
        """
        cause, delay_ms = exc or sys.exception(), _delay_ms(self, **when)
        most = self.max_retries if max_retries is None else max_retries
        if self.request.id is None and cause is not None:
            raise cause
        if most is not None and self.request.retries >= most:
            raise exc or self.MaxRetriesExceededError(f"task {self.actor_name}: all {most} retries are used up")
        raise Retry(f"task {self.actor_name}: {cause or 'asked for'!r}", delay_ms) from cause


def shared_task(function: Any = None, /, *, bind: bool = False, queue: str = "default", **given: Any) -> Any:
    """Declare a task: ``@shared_task``, or ``@shared_task(bind=True, max_retries=5)``.

    Args:
        given: ``name``; ``max_retries`` (3, ``None`` for no end); ``default_retry_delay`` (180 s); ``autoretry_for``;
            ``ignore_result`` (``False``: what it returns is kept).

    Raises:
        UnknownOption: another option of Celery.
    """
    if function is None:
        return partial(shared_task, bind=bind, queue=queue, **given)
    name, most, errors = given.pop("name", None), given.pop("max_retries", 3), tuple(given.pop("autoretry_for", ()))
    delay_s, is_ignored = given.pop("default_retry_delay", 180), given.pop("ignore_result", False)
    _refuse(name or function.__name__, given)

    def is_retried(retries: int, error: BaseException) -> bool:
        return isinstance(error, Retry) or (isinstance(error, errors) and (most is None or retries < most))

    return dramatiq.actor(
        actor_class=partial(Task, bind=bind),
        actor_name=name,
        queue_name=queue,
        max_retries=most,
        backoff=lambda retry: int(delay_s * 1_000),
        retry_when=is_retried,
        store_results=not is_ignored,
    )(function)


def _delay_ms(task: Task, countdown: float | None = None, eta: Any = None, **others: Any) -> int | None:
    _refuse(task.actor_name, others)
    if countdown is None and eta is not None:
        countdown = ((timezone.make_aware(eta) if timezone.is_naive(eta) else eta) - timezone.now()).total_seconds()
    return None if countdown is None else max(int(countdown * 1_000), 0)


def _refuse(task: str, given: Collection[str]) -> None:
    """Refuse the options that are left of what a task or a call was given."""
    if given:
        remedies = "; ".join(f"{name!r}: {INSTEAD.get(name, OTHERS)}" for name in given)
        raise UnknownOption(f"task {task}: unknown option of switchyard.compat.celery {remedies}")
