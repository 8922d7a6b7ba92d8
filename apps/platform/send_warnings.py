"""Warnings, in development, of a send inside a transaction, and of a time that is sent without a zone."""

from __future__ import annotations

import inspect
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import dramatiq
from django.conf import settings
from django.db import connections
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from broker import errors
from broker.queue.arguments.types import argument_types
from middleware import places
from middleware.arguments import signature_of

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

    A worker may start the job before the commit.

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


class ZoneWarnings(Middleware):
    """Log of each argument, once a process, that is annotated ``datetime`` and gets a time without a zone.

    Listed in development only, where ``USE_TZ`` is set as it is everywhere here.
    """

    def __init__(self) -> None:
        self._reported: set[tuple[str, str]] = set()

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Warn of times without a zone."""
        actor = broker.actors.get(message.actor_name)
        if actor is None or not argument_types(actor.fn).is_typed:
            return
        try:
            given = signature_of(actor.fn).bind(*message.args, **message.kwargs).arguments
        except TypeError:  # refused by another middleware, or of other code
            return
        for name, value in given.items():
            if (
                not isinstance(value, datetime)
                or value.tzinfo is not None
                or (actor.actor_name, name) in self._reported
            ):
                continue
            self._reported.add((actor.actor_name, name))
            logger.warning(
                "actor %s: argument %s has no zone; send timezone.now(), or timezone.make_aware(%s), of django.utils",
                actor.actor_name,
                name,
                name,
            )


def calling_place() -> str:
    """Return the innermost place of the project's code that led here."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_back is not None and frame.f_code.co_filename.startswith(PASSED_OVER):
        frame = frame.f_back
    return places.place(frame.f_code.co_filename, frame.f_lineno) if frame is not None else ""  # CPython has frames
