"""Failed attempts of a task, kept in its message: where they ran, the class of the exception, the traceback.

The message's option ``task`` is an object: ``backend`` (alias), ``run_after`` (ms since the epoch) and ``attempts``,
a list of [worker, start in ms, path of the exception's class, traceback].
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from switchyard.broker.clock import now_ms
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.interface import facilities
from switchyard.broker.queue import codec
from switchyard.broker.stores.job_record import number_or_none
from switchyard.middleware.errors import PermanentFailure
from switchyard.middleware.option_rules import OptionRule
from switchyard.tasks.registry import task_at

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

    option_rules: ClassVar = (OptionRule(OPTION, None, lambda value, queue: _usable(value)),)

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
    """Return the failed attempts in a message's options."""
    found = fields_of(options).get("attempts")
    return [FailedAttempt(*each) for each in found if _is_attempt(each)] if isinstance(found, list) else []


def worker_of(broker: Broker) -> str:
    return facilities(broker).barrier.worker_place.worker


def path_of(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_attempt(value: Any) -> bool:
    kinds = (str, int, str, str)
    if not isinstance(value, list | tuple) or [type(each) for each in value] != list(kinds):
        return False
    return number_or_none(value[1]) is not None


def _usable(value: Any) -> str:
    return "" if isinstance(value, dict) else "leave it out, the task's backend writes it"
