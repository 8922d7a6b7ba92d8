"""Run times of tasks, logged to a file by the measured children."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

VARIABLE = "SWITCHYARD_MEASURED_TIMES"


@dataclass(frozen=True, slots=True)
class Lap:
    """Run of one task; monotonic times, comparable between the processes of a machine."""

    start_s: float
    end_s: float
    ok: bool


class Stopwatch(Middleware):
    """Middleware that logs the end of each task. A line is one ``write``, so a kill leaves it whole or absent."""

    def __init__(self) -> None:
        self._file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        message.lap_start_s = time.monotonic()  # type: ignore[attr-defined]

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        start_s = getattr(message, "lap_start_s", None)
        if start_s is not None:
            os.write(self._file, f"{start_s:.6f} {time.monotonic():.6f} {int(exception is None)}\n".encode())


def read_laps(path: Path) -> list[Lap]:
    """Return the laps logged so far."""
    if not path.exists():
        return []
    lines = (line.split() for line in path.read_text().splitlines())
    return [Lap(float(start), float(end), ok == "1") for start, end, ok in lines]
