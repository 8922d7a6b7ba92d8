"""What a child does under chaos beside its work: note how each attempt ends, and give its connections its name."""

from __future__ import annotations

import os
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

# Where the children of a yard under chaos note what they did. Also executed children find it in their environment.
NOTES_VARIABLE = "SWITCHYARD_CHAOS_NOTES"


class Notes(Middleware):
    """Append a line to a file when an attempt has ended: ``completed ID``, ``failed ID`` or ``skipped ID``.

    A line is one ``write`` with ``O_APPEND``: it is there whole or not at all, also after a kill, and before the
    message is acknowledged.
    """

    def __init__(self) -> None:
        self._file = os.open(os.environ[NOTES_VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

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
        """Note the end of an attempt."""
        self._note("completed" if exception is None else "failed", message)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Note that a message did not run."""
        self._note("skipped", message)

    def _note(self, phase: str, message: MessageProxy) -> None:
        os.write(self._file, f"{phase} {message.message_id}\n".encode())


def client_name(pid: int) -> str:
    """Return what a child's connections are called in the server's list of clients."""
    return f"switchyard-chaos-{pid}"
