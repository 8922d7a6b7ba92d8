"""Warning, in development, of a send inside a transaction: a worker may start the job before the commit."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import dramatiq
from django.conf import settings
from django.db import connections
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from broker import errors
from middleware import places

logger = logging.getLogger("switchyard.jobs")

# Folders of the code between the project's call and this middleware.
PASSED_OVER = tuple(
    str(folder)
    for folder in (
        Path(dramatiq.__file__).parent,
        Path(errors.__file__).parent,
        Path(places.__file__).parent,
        Path(__file__).parent,
    )
)


class TransactionWarnings(Middleware):
    """Log of each place in the project's code that sends a message inside a transaction, once a process.

    Listed in development only. Test runners turn ``DEBUG`` off and keep a transaction open: they are not warned.
    """

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Warn if a transaction of this thread is open."""
        if not settings.DEBUG or not any(each.in_atomic_block for each in connections.all(initialized_only=True)):
            return
        where = calling_place()
        if where in self._reported:
            return
        self._reported.add(where)
        logger.warning(
            "actor %s: sent inside a transaction at %s; a worker may start the job before the commit, and it runs "
            "after a rollback too; write enqueue_on_commit(%s, ...) of %s.jobs.services",
            message.actor_name,
            where,
            message.actor_name,
            __package__,
        )


def calling_place() -> str:
    """Return the innermost place of the project's code that led here."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_back is not None and frame.f_code.co_filename.startswith(PASSED_OVER):
        frame = frame.f_back
    return places.place(frame.f_code.co_filename, frame.f_lineno) if frame is not None else ""  # CPython has frames
