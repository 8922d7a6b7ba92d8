"""Failures for want of a table or a column: the exception says what creates them."""

from __future__ import annotations

from typing import Any

from django.db import OperationalError, ProgrammingError
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

REMEDY = "run manage.py migrate; after a change of models, manage.py makemigrations before"
# PostgreSQL's codes of an undefined table and an undefined column, and SQLite's words for them.
STATES = ("42P01", "42703")
WORDS = ("no such table", "no such column", "has no column named")


class MissingTables(Middleware):
    """Middleware that adds the remedy to the exception of a job whose tables are not migrated, for logs and pages.

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
        """Add the remedy."""
        if isinstance(exception, (OperationalError, ProgrammingError)) and _lacks_table(exception):
            exception.add_note(REMEDY)


def _lacks_table(error: BaseException) -> bool:
    return getattr(error.__cause__, "sqlstate", "") in STATES or any(words in str(error) for words in WORDS)
