"""App of the measured processes: it logs each ended attempt, independent of what they report to the broker."""

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import dramatiq
from django.apps import AppConfig
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from switchyard.middleware.dead_letters import DeadLetters

# Path of the log. An environment variable, so that executed children find it as well as forked ones.
VARIABLE = "SWITCHYARD_MEASURED_ATTEMPTS"


class Attempt(NamedTuple):
    """One ended attempt; monotonic times, comparable between the processes of a machine."""

    completed: bool
    start_s: float
    end_s: float


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
        self._append(message, completed=exception is None)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self._append(message, completed=False)

    def _append(self, message: MessageProxy, *, completed: bool) -> None:
        end_s = time.monotonic()
        os.write(self._file, f"{completed:d} {getattr(message, 'attempt_start_s', end_s):.6f} {end_s:.6f}\n".encode())


def read_attempts(path: Path) -> list[Attempt]:
    lines = path.read_text().splitlines() if path.exists() else ()
    return [Attempt(done == "1", float(start), float(end)) for done, start, end in map(str.split, lines)]


class MeasuringConfig(AppConfig):
    """App that adds the log of attempts to every measured process."""

    name = "devtools.measuring"

    def ready(self) -> None:
        """Add the log of attempts as the innermost middleware.

        Failures are not projected into the database: their broker is thrown away after the measurement.
        """
        broker = dramatiq.get_broker()
        broker.add_middleware(AttemptLog())
        for entry in broker.middleware:
            if isinstance(entry, DeadLetters):
                entry.on_dead = ()
