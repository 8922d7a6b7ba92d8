"""Time that a test moves on, and callbacks of ``transaction.on_commit`` inside the transaction of a ``TestCase``."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic

from switchyard.database import in_transaction
from switchyard.middleware.envelope import sent_by_schedule
from switchyard.schedules.registry import schedules


class Clock(ExitStack):
    """The clock of a test, until it is closed. It goes on by itself, and is moved on by :meth:`advance`."""

    _moved: Any = None

    def advance(self, seconds: float) -> None:
        """Move the time of this process on.

        Raises:
            RuntimeError: ``time-machine`` is not installed.
        """
        if self._moved is None:
            try:
                import time_machine
            except ModuleNotFoundError:
                remedy = "install it, or Switchyard with its extra testing"
                raise RuntimeError(f"advance() and run_enqueued(delayed=True) need time-machine: {remedy}") from None
            self._moved = self.enter_context(time_machine.travel(datetime.now(UTC), tick=True))
        self._moved.shift(timedelta(seconds=seconds))


def seconds_of(moved: Any) -> float:
    """Return how far the time is moved on, in seconds.

    Raises:
        TypeError: it is neither a number nor a ``timedelta``. ValueError: it is below 0, or not finite.
    """
    if isinstance(moved, timedelta):
        moved = moved.total_seconds()
    if type(moved) not in (int, float):
        raise TypeError(f"advance({moved!r:.100}): write seconds as a number, or a timedelta")
    if not 0 <= moved < math.inf:
        raise ValueError(f"advance({moved!r}): time only moves on, write 0 or more")
    return float(moved)


def advance_with_ticks(clock: Clock, seconds: float) -> None:
    """Move the time on and send the ticks of periodic actors on the way, each at its minute."""
    now, due = datetime.now(UTC), schedules()
    end = now + timedelta(seconds=seconds)
    after_end = end + timedelta(seconds=1)
    while (tick := min((at for one in due if (at := one.next(now)) is not None), default=after_end)) <= end:
        clock.advance(max((tick - datetime.now(UTC)).total_seconds(), 0))
        for schedule in due:
            if schedule.next(now) == tick:
                with sent_by_schedule(schedule.name):
                    schedule.actor.broker.enqueue(schedule.actor.message())
        now = tick
    clock.advance(max((end - datetime.now(UTC)).total_seconds(), 0))


logger = logging.getLogger("switchyard.testing")


class _Callback:
    """A callback that runs once, whoever calls it."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self.has_run = False

    def __call__(self) -> None:
        if not self.has_run:
            self.has_run = True
            self._function()


@contextmanager
def watched_commits(*, at_once: bool = False) -> Iterator[None]:
    """Keep the callbacks that are registered in the block, for :func:`run_callbacks`.

    Args:
        at_once: Run them where the outermost transaction of the code under test ends, as a commit would.
    """
    with ExitStack() as stack:
        for connection in connections.all():
            stack.enter_context(mock.patch.object(connection, "on_commit", _keeping(connection, at_once=at_once)))
            # A worker closes connections between messages; in the transaction of a test that would end the test.
            closing = _outside_of_transactions(connection)
            stack.enter_context(mock.patch.object(connection, "close_if_unusable_or_obsolete", closing))
        if at_once:
            stack.enter_context(mock.patch.object(Atomic, "__exit__", _running_at_exit()))
        yield


def run_callbacks() -> None:
    """Run the callbacks of transactions that would have been committed outside of a ``TestCase``.

    Raises:
        Exception: what a callback raised; robust ones are logged, as by Django.
    """
    while pending := [entry for connection in connections.all(initialized_only=True) for entry in _pending(connection)]:
        for callback, robust in pending:
            try:
                callback()
            except Exception:
                if not robust:
                    raise
                logger.exception("a robust on_commit callback failed")


def forget_callbacks() -> None:
    """Never run the callbacks that are kept now: those of a class's set-up belong to none of its tests."""
    for connection in connections.all(initialized_only=True):
        for callback, _ in _pending(connection):
            callback.has_run = True


def begin_savepoints() -> list[tuple[BaseDatabaseWrapper, str]]:
    """Begin savepoints in the test's transactions: a statement that fails in a task must not break them."""
    open_ = [connection for connection in connections.all(initialized_only=True) if _is_in_test(connection)]
    return [(connection, sid) for connection in open_ if (sid := connection.savepoint())]


def end_savepoints(savepoints: list[tuple[BaseDatabaseWrapper, str]]) -> None:
    """Return to the savepoint where a statement failed outside of an ``atomic`` block of the task."""
    for connection, savepoint in savepoints:
        if connection.needs_rollback:
            connection.needs_rollback = False
            connection.savepoint_rollback(savepoint)
        else:
            connection.savepoint_commit(savepoint)


def _keeping(connection: BaseDatabaseWrapper, *, at_once: bool) -> Callable[..., None]:
    original = connection.on_commit

    def on_commit(func: Any, robust: bool = False) -> None:
        original(_Callback(func) if callable(func) else func, robust)
        if at_once:
            run_callbacks()

    return on_commit


def _outside_of_transactions(connection: BaseDatabaseWrapper) -> Callable[[], None]:
    original = connection.close_if_unusable_or_obsolete

    def close_if_unusable_or_obsolete() -> None:
        if not connection.in_atomic_block:
            original()

    return close_if_unusable_or_obsolete


def _running_at_exit() -> Callable[..., Any]:
    original = Atomic.__exit__

    def exit_and_run(self: Atomic, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        original(self, exc_type, exc_value, traceback)
        if exc_type is None:
            run_callbacks()

    return exit_and_run


def _pending(connection: BaseDatabaseWrapper) -> list[tuple[_Callback, bool]]:
    if not _is_in_test(connection):
        return []
    kept: list[Any] = connection.run_on_commit  # of Django 5: savepoints, function, robust
    entries = [(function, robust) for _, function, robust in kept]
    return [(one, robust) for one, robust in entries if isinstance(one, _Callback) and not one.has_run]


def _is_in_test(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a connection is in the transaction of a ``TestCase``, and in no other."""
    return connection.in_atomic_block and not in_transaction(connection)
