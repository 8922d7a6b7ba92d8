"""Calls with a time limit to dependencies that may hang.

Callers share a call that is still running: however many probes arrive, one thread waits for one dependency.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import Generic, TypeVar

from switchyard.broker.errors import SwitchyardError

T = TypeVar("T")


class NoAnswer(SwitchyardError):
    """A dependency did not answer in time."""

    def __init__(self, name: str, timeout_s: float) -> None:
        super().__init__(f"{name}: no answer within {timeout_s:g} s; check that it is up and reachable")


class TimedCall(Generic[T]):
    """A function that is called with a time limit, in one thread at a time.

    Args:
        name: Name of the dependency, for the error.
    """

    def __init__(self, name: str, function: Callable[[], T]) -> None:
        self._name = name
        self._function = function
        self._lock = threading.Lock()
        self._pending: Future[T] | None = None

    def result(self, timeout_s: float) -> T:
        """Return the function's result, or raise its exception. Concurrent callers share one call.

        Raises:
            NoAnswer: the function took longer than ``timeout_s``.
        """
        with self._lock:
            if self._pending is None:
                self._pending, name = Future(), f"call {self._name}"
                threading.Thread(target=self._run, args=(self._pending,), name=name, daemon=True).start()
            pending = self._pending
        if not wait([pending], timeout_s).done:
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
        end()
