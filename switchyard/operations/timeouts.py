"""Calls with a time limit to dependencies that may hang.

Callers share a call that is still running: however many probes arrive, one thread waits for one dependency.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
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
        self._pending: _Result[T] | None = None

    def result(self, timeout_s: float) -> T:
        """Return the function's result, or raise its exception. Concurrent callers share one call.

        Raises:
            NoAnswer: the function took longer than ``timeout_s``.
        """
        with self._lock:
            if self._pending is None:
                self._pending = _Result()
                threading.Thread(
                    target=self._run, args=(self._pending,), name=f"call {self._name}", daemon=True
                ).start()
            pending = self._pending
        if not pending.ready.wait(timeout_s):
            raise NoAnswer(self._name, timeout_s)
        return pending.get()

    def _run(self, result: _Result[T]) -> None:
        try:
            result.value = self._function()
        except Exception as error:  # noqa: BLE001  raised in the callers
            result.error = error
        with self._lock:
            self._pending = None
        result.ready.set()


class _Result(Generic[T]):
    value: T
    error: Exception | None = None

    def __init__(self) -> None:
        self.ready = threading.Event()

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value
