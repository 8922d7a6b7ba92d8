"""Time limit for the answers of a database server, in the thread that asks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import Any

from django.db import OperationalError, connection

from apps.platform.operations.timeouts import NoAnswer, TimedCall


def _open() -> None:
    try:
        connection.ensure_connection()
    finally:
        connection.close()


# Connecting takes up to connect_timeout, whole seconds, so it is tried in a thread of its own first.
_OPENING = TimedCall("database", _open)


@contextlib.contextmanager
def answers_within(timeout_s: float) -> Iterator[None]:
    """Limit the time that the statements of the block wait for the default database, if it is a PostgreSQL.

    A server that was stopped, or whose host hangs, keeps its connections open, and its client waits for ever:
    ``statement_timeout`` is the server's own. After the limit the connection is closed. A statement that takes longer
    on a slow host ends as well.

    Args:
        timeout_s: Seconds for the whole block; opening a connection first may take as long once more.

    Raises:
        OperationalError: no answer within the limit.
    """
    if connection.vendor != "postgresql":  # a file is there or not, and its lock has a timeout
        yield
        return
    if connection.connection is None:
        try:
            _OPENING.result(timeout_s)
        except NoAnswer as error:
            raise OperationalError(str(error)) from error
        connection.ensure_connection()
    client: Any = connection.connection
    waits, limit = client.wait, _Limit(timeout_s)

    def wait(answer: Any, *args: Any, **options: Any) -> Any:
        return waits(limit.of(answer), *args, **options)

    client.wait = wait  # which every statement calls
    try:
        yield
    finally:
        del client.wait
        if limit.passed:
            connection.close()  # its answer is still to come


class _Limit:
    """Deadline of a block. ``passed`` says whether an answer was given up."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s
        self.passed = False

    def of(self, answer: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Return psycopg's wait for an answer, which is resumed ten times a second, with the deadline.

        Raises:
            OperationalError: the answer did not come before it.
        """
        try:
            awaited = next(answer)
            while True:
                ready = yield awaited
                if not ready and time.monotonic() >= self._deadline_s:
                    self.passed = True
                    raise OperationalError(f"database: no answer within {self._timeout_s:g} s")
                awaited = answer.send(ready)
        except StopIteration as end:
            return end.value
