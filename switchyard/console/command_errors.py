"""Error handling and exit codes of management commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from django.db import DatabaseError

from switchyard.broker.errors import BrokerError

WRONG_ARGUMENTS = 2
DATABASE_REMEDY = "check DATABASE_URL and SWITCHYARD_STATE_DIR, and that manage.py migrate was run"


@contextmanager
def as_command_error(subject: str) -> Iterator[None]:
    """Turn a failure of the database or the broker into a one-line ``CommandError`` without a traceback.

    Args:
        subject: Object of the command, such as ``job <id>``; the line begins with it.

    Raises:
        CommandError: the database or the broker refused or did not answer.
    """
    try:
        yield
    except DatabaseError as error:
        raise CommandError(f"{subject}: the database does not answer: {error}; {DATABASE_REMEDY}") from error
    except BrokerError as error:
        raise CommandError(f"{subject}: {error}") from error
