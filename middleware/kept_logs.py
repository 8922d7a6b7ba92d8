"""Kept log lines: what a job logs is collected while it runs, for the record of an attempt that fails."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from dramatiq.actor import Actor

from switchyard.broker.queue.arguments.types import in_message
from switchyard.broker.stores.ended_jobs import LOGS_LIMIT_BYTES
from switchyard.middleware.logs import JOBS_LOGGER, printable, running_message
from switchyard.middleware.redaction import without_arguments, without_secrets

# Bound to every line of a job: its record says them.
NAMES: Final = frozenset({"job_id", "actor", "queue", "attempt", "event", "level", "logger", "timestamp"})
LEFT_OUT: Final = "[earlier lines were left out]\n"
CLOCK: Final = logging.Formatter("%(asctime)s")


class KeptLogs(logging.Handler):
    """Handler that collects the lines of running jobs: the last 16 KiB of each, until :meth:`drop`.

    They are kept with the message of the attempt: a retry may begin in another thread before its first attempt's hooks
    have ended. The lines that this library logs at the end of an attempt are left out: the record says the same.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a line of a running job."""
        message: Any = running_message()
        if message is None or record.name == JOBS_LOGGER:
            return
        try:
            line = _line_of(record)
        except Exception:  # noqa: BLE001  a line that cannot be formatted is the other handlers' to report
            return
        lines = getattr(message, "log_lines", None)
        if lines is None:
            lines = message.log_lines = []
        lines.append(line)
        while len(lines) > 1 and sum(map(len, lines)) > LOGS_LIMIT_BYTES:
            lines[:2] = [LEFT_OUT]

    def of(self, message: Any, actor: Actor[..., Any] | None) -> str | None:
        """Return the lines of an attempt, without probable secrets and hidden arguments; ``None`` if there are none."""
        lines = getattr(message, "log_lines", None)
        if not lines:
            return None
        sent = in_message(message)
        payload = {"args": list(sent.args), "kwargs": sent.kwargs}
        text = without_arguments(actor, payload, without_secrets("".join(lines)))
        return text.encode("utf-8", "backslashreplace")[-LOGS_LIMIT_BYTES:].decode("utf-8", "ignore")

    def drop(self, message: Any) -> None:
        """Forget the lines of an attempt."""
        if getattr(message, "log_lines", None):
            message.log_lines = None


def _line_of(record: logging.LogRecord) -> str:
    text = _event_of(record.msg) if isinstance(record.msg, Mapping) else record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
    line = f"{CLOCK.formatTime(record)} {record.levelname.lower()} {record.name}: {text}"
    return printable(line)[: LOGS_LIMIT_BYTES // 2] + "\n"


def _event_of(event: Mapping[str, Any]) -> str:
    more = [f"{name}={value}" for name, value in event.items() if name not in NAMES and not name.startswith("_")]
    return " ".join([str(event.get("event", "")), *more])
