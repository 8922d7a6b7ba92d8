"""Ended attempts, as children log them while they are measured, independent of what they report to the broker."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

# Path of the log. An environment variable, so that executed children find it as well as forked ones.
VARIABLE = "SWITCHYARD_MEASURED_ATTEMPTS"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ended attempt; monotonic times, comparable between the processes of a machine.

    Args:
        outcome: ``completed``, ``failed`` or ``skipped``.
    """

    outcome: str
    start_s: float
    end_s: float
    message_id: str


class AttemptLog(Middleware):
    """Middleware that logs each ended attempt in a line, with the columns of :class:`Attempt`.

    Each line is one ``write`` with ``O_APPEND``, so a kill leaves it whole or absent. It is written before the message
    is acknowledged.
    """

    def __init__(self) -> None:
        self._file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        message.attempt_start_s = time.monotonic()  # type: ignore[attr-defined]

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        self._append("completed" if exception is None else "failed", message)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self._append("skipped", message)

    def _append(self, outcome: str, message: MessageProxy) -> None:
        end_s = time.monotonic()
        start_s = getattr(message, "attempt_start_s", end_s)
        os.write(self._file, f"{outcome} {start_s:.6f} {end_s:.6f} {message.message_id}\n".encode())


def read_attempts(path: Path) -> list[Attempt]:
    lines = (line.split(" ", 3) for line in path.read_text().splitlines()) if path.exists() else ()
    return [Attempt(outcome, float(start), float(end), id_) for outcome, start, end, id_ in lines]
