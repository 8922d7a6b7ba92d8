"""Outcomes of attempts: a log that the children write under chaos, independent of what they report to the broker."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

# Path of the log. An environment variable, so that executed children find it as well as forked ones.
OUTCOMES_VARIABLE = "SWITCHYARD_CHAOS_NOTES"


class OutcomeLog(Middleware):
    """Log file with one line for each ended attempt: ``completed ID``, ``failed ID`` or ``skipped ID``.

    Each line is one ``write`` with ``O_APPEND``, so a kill leaves it whole or absent. It is written before the message
    is acknowledged.
    """

    def __init__(self) -> None:
        self._file = os.open(os.environ[OUTCOMES_VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def after_process_boot(self, broker: Broker) -> None:
        """Name this child's connections to the broker, before the first is made."""
        broker.client.connection_pool.connection_kwargs["client_name"] = client_name(os.getpid())  # type: ignore[attr-defined]

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        self._append("completed" if exception is None else "failed", message)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self._append("skipped", message)

    def _append(self, outcome: str, message: MessageProxy) -> None:
        os.write(self._file, f"{outcome} {message.message_id}\n".encode())


def read_outcomes(path: Path) -> dict[str, Counter[str]]:
    """Return outcome -> message id -> number of attempts, of the whole log."""
    found: dict[str, Counter[str]] = {"completed": Counter(), "failed": Counter(), "skipped": Counter()}
    if path.exists():
        for line in path.read_text().splitlines():
            outcome, _, id_ = line.partition(" ")
            found[outcome][id_] += 1
    return found


def client_name(pid: int) -> str:
    """Return the name of a child's connections in the server's list of clients."""
    return f"switchyard-chaos-{pid}"
