"""Failures whose remedy the exception is given: a missing table, a query that an async actor does not await."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import SynchronousOnlyOperation
from django.db import OperationalError, ProgrammingError
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

NO_TABLE = "run manage.py migrate; after a change of models, manage.py makemigrations before"
IN_EVENT_LOOP = (
    "an async actor awaits the database: write await Model.objects.aget(...), async for over a queryset, or "
    "await sync_to_async(function)(...) of asgiref.sync; or declare the actor with def, without async"
)
# PostgreSQL's codes of an undefined table and an undefined column, and SQLite's words for them.
STATES = ("42P01", "42703")
WORDS = ("no such table", "no such column", "has no column named")


class FailureNotes(Middleware):
    """Middleware that adds the remedy to the exception of a job, for logs and pages.

    Listed behind all that read the exception.
    """

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Add the remedy, where one is known."""
        if exception is not None:
            add_remedy(exception)


def add_remedy(error: BaseException) -> None:
    """Add the remedy to an exception, where one is known."""
    remedy = ""
    if isinstance(error, (OperationalError, ProgrammingError)) and _lacks_table(error):
        remedy = NO_TABLE
    elif isinstance(error, SynchronousOnlyOperation):
        remedy = IN_EVENT_LOOP
    if remedy and remedy not in getattr(error, "__notes__", ()):
        error.add_note(remedy)


def _lacks_table(error: BaseException) -> bool:
    return getattr(error.__cause__, "sqlstate", "") in STATES or any(words in str(error) for words in WORDS)
