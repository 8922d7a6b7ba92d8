"""Calls with a time limit to dependencies that may hang.

Callers share a call that is still running: however many probes arrive, one thread waits for one dependency.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from contextvars import ContextVar
from functools import partial
from typing import Any, Generic, TypeVar

from django.db import OperationalError, connection

from switchyard.broker.errors import SwitchyardError

T = TypeVar("T")


class NoAnswer(SwitchyardError):
    """A dependency did not answer in time."""

    def __init__(self, name: str, timeout_s: float) -> None:
        super().__init__(f"{name}: no answer within {timeout_s:g} s; check that it is up and reachable")


class TimedCall(Generic[T]):
    """A function that is called with a time limit, in one thread at a time; ``name`` is that of the dependency."""

    def __init__(self, name: str, function: Callable[[], T]) -> None:
        self._name = name
        self._function = function
        self._lock = threading.Lock()
        self._pending: Future[T] | None = None
        self._given_up: Future[T] | None = None
        self._late: tuple[Future[T], float] | None = None

    def result(self, timeout_s: float, *, late_s: float = 0.0) -> T:
        """Return the function's result, which concurrent callers share, or raise its exception; else ``NoAnswer``.

        One that came after its callers had given up is returned for ``late_s``, once: what is slower is not away.
        """
        with self._lock:
            if late_s and self._late is not None:
                (late, at_s), self._late = self._late, None
                if time.monotonic() - at_s <= late_s:
                    return late.result()
            if self._pending is None:
                self._pending, name = Future(), f"call {self._name}"
                threading.Thread(target=self._run, args=(self._pending,), name=name, daemon=True).start()
            pending = self._pending
        if not wait([pending], timeout_s).done:
            self._given_up = pending
            raise NoAnswer(self._name, timeout_s)
        return pending.result()

    def _run(self, pending: Future[T]) -> None:
        end: Callable[[], None]
        try:
            end = partial(pending.set_result, self._function())
        except Exception as error:  # noqa: BLE001  raised in the callers
            end = partial(pending.set_exception, error)
        with self._lock:
            self._pending = None
            self._late = (pending, time.monotonic()) if self._given_up is pending else None
        end()


def _open() -> None:
    try:
        connection.ensure_connection()
    finally:
        connection.close()


# Connecting takes up to connect_timeout, whole seconds, so it is tried in a thread of its own first.
_OPENING = TimedCall("database", _open)


# Limit of the code that runs, in whichever thread a request goes on.
_LIMIT: ContextVar[_Limit | None] = ContextVar("limit of the database's answers", default=None)


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
    _bind(connection.connection)
    limit = _Limit(timeout_s, of_block=True)
    token = _LIMIT.set(limit)
    try:
        yield
    finally:
        _LIMIT.reset(token)
        if limit.passed:
            connection.close()  # its answer is still to come


@contextlib.contextmanager
def each_statement_within(timeout_s: float) -> Iterator[None]:
    """Limit the time that each statement of the block waits for a PostgreSQL, in every thread that it goes on in.

    After the limit the client is closed, so that the statements that follow fail at once. A connection that the block
    opens has its own limit, ``connect_timeout``.
    """
    token = _LIMIT.set(_Limit(timeout_s))
    try:
        yield
    finally:
        _LIMIT.reset(token)


def limit_connection(sender: Any, connection: Any, **options: Any) -> None:
    """Have the statements of a new connection keep the limits; for Django's signal ``connection_created``."""
    if connection.vendor == "postgresql":
        _bind(connection.connection)


def _bind(client: Any) -> None:
    """Replace the function that every statement of a client waits with, once."""
    if "wait" in vars(client):
        return
    waits = client.wait

    def wait(answer: Any, *args: Any, **options: Any) -> Any:
        limit = _LIMIT.get()
        if limit is None:
            return waits(answer, *args, **options)
        try:
            return waits(limit.of(answer), *args, **options)
        finally:
            if limit.passed:
                client.close()

    client.wait = wait


class _Limit:
    """Deadline of a block, or of each of its statements. ``passed`` says whether an answer was given up."""

    def __init__(self, timeout_s: float, *, of_block: bool = False) -> None:
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s if of_block else None
        self.passed = False

    def of(self, answer: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Return psycopg's wait for an answer, resumed ten times a second; ``OperationalError`` once it is too late."""
        deadline_s = self._deadline_s if self._deadline_s is not None else time.monotonic() + self._timeout_s
        try:
            awaited = next(answer)
            while True:
                ready = yield awaited
                if not ready and time.monotonic() >= deadline_s:
                    self.passed = True
                    raise OperationalError(f"database: no answer within {self._timeout_s:g} s")
                awaited = answer.send(ready)
        except StopIteration as end:
            return end.value
