"""Warnings of sends: in development inside a transaction, in tests to the real broker."""

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dramatiq
from django.conf import settings
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import Middleware, MiddlewareError

from switchyard import broker, middleware
from switchyard.database import open_transaction
from switchyard.middleware.errors import place

logger = logging.getLogger("switchyard.jobs")

# Not empty while a test sends to the real broker on purpose.
_meant: list[bool] = []

# Folders of the code between the project's call and this middleware.
PASSED_OVER = tuple(
    str(Path(file).parent) for file in (dramatiq.__file__, broker.__file__, middleware.__file__, __file__)
)


def warnings_of_sends(*, debug: bool) -> list[Middleware]:
    """Return the middleware that warns in development, and in a process that runs pytest or ``manage.py test``."""
    is_test_run = "pytest" in sys.modules or sys.argv[1:2] == ["test"]
    return [*([TransactionWarnings()] if debug else []), *([SendsInTesting()] if is_test_run else [])]


class TransactionWarnings(Middleware):
    """Log of each place in the project's code that sends a message inside a transaction, once a process.

    Listed in development only, where sends wait for no commit by themselves; test runners turn ``DEBUG`` off.
    """

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Warn if a transaction of this thread is open."""
        actor = broker.actors.get(message.actor_name)
        chosen = "on_commit" in message.options or (actor is not None and "on_commit" in actor.options)
        if chosen or not settings.DEBUG or not open_transaction():
            return
        where = place(*calling_line())
        if where in self._reported:
            return
        self._reported.add(where)
        logger.warning(
            "actor %s: sent inside a transaction at %s; a worker may start the job before the commit, and it runs "
            "after a rollback too; write SWITCHYARD = {'SENDS': 'on_commit'}, or on_commit=True in the actor's options",
            message.actor_name,
            where,
        )


class SentInTesting(UserWarning, MiddlewareError):
    """A run of tests sent a message to the real broker. A ``MiddlewareError``, so that ``-W error`` fails the test."""

    def __init__(self, actor_name: str, test: str) -> None:
        fact = (
            f"the test {test} sent it to the real broker, and no test runs what waits there; write "
            f"@in_memory() of {__package__}.testing above the test or its class, or give it the fixture "
            "switchyard_broker of pytest; a test with workers of its own is given switchyard_real_broker"
            if test
            else "sent to the real broker outside of a test, by the set-up of a class, a fixture "
            f"or an import, and a worker that runs there will do it; write @in_memory() of {__package__}.testing "
            "above the class, or `switchyard_in_memory = true` in pytest's settings"
        )
        super().__init__(f"actor {actor_name}: {fact}")


class SendsInTesting(Middleware):
    """Warn, once for each test and actor, of a message that a run of tests sends to the real broker."""

    def __init__(self) -> None:
        self._test, self._reported = "", set[str]()

    def before_enqueue(self, broker: Broker, message: Message[object], delay: int | None) -> None:
        if _meant:
            return
        test = running_test()
        if test != self._test:
            self._test, self._reported = test, set()
        if message.actor_name in self._reported:
            return
        self._reported.add(message.actor_name)
        file, line = calling_line()
        warnings.warn_explicit(SentInTesting(message.actor_name, test), SentInTesting, file, line)


@contextmanager
def real_broker_is_meant() -> Iterator[None]:
    """Send without the warning in this block."""
    _meant.append(True)
    try:
        yield
    finally:
        _meant.pop()


def running_test() -> str:
    """Return the name of the test that leads here; "" if a fixture, the set-up of a class or an import does."""
    if "pytest" in sys.modules and (named := os.environ.get("PYTEST_CURRENT_TEST")):
        test, _, phase = named.rpartition(" ")
        return test if phase == "(call)" else ""
    from unittest import TestCase  # 5 ms of each start that only a run of tests needs

    frame = inspect.currentframe()
    while frame is not None:
        case: Any = frame.f_locals.get("self")
        if issubclass(type(case), TestCase):  # isinstance would make what a lazy object stands for
            return str(case.id())
        frame = frame.f_back
    return ""


def calling_line() -> tuple[str, int]:
    """Return the file and the number of the innermost line of the project's code that led here."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_back is not None and frame.f_code.co_filename.startswith(PASSED_OVER):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)  # CPython has frames
