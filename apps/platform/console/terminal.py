"""What a command says when the database or the broker does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from django.db import DatabaseError
from redis import RedisError

from broker.errors import BrokerUnavailable

WRONG_ARGUMENTS = 2


@contextmanager
def in_words(subject: str) -> Iterator[None]:
    """End a command with one line, not a traceback, when database or broker cannot serve it.

    Args:
        subject: What was asked for, first in the line.

    Raises:
        CommandError: what was done inside got no answer.
    """
    try:
        yield
    except DatabaseError as error:
        raise CommandError(
            f"{subject}: the database cannot say: {error}; "
            "check DATABASE_URL and SWITCHYARD_STATE_DIR, and that manage.py migrate was run"
        ) from error
    except BrokerUnavailable as error:
        raise CommandError(f"{subject}: {error}") from error
    except RedisError as error:
        raise CommandError(
            f"{subject}: the broker does not answer: {error}; check SWITCHYARD_BROKER_URL and that the server is up"
        ) from error
