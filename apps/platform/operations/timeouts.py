"""Ask something that may not answer, for a bounded time.

A question that is still open is not asked again: however often a probe comes, one thread waits for one dependency.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from broker.errors import SwitchyardError

T = TypeVar("T")


class NoAnswer(SwitchyardError):
    """A dependency did not answer in time."""

    def __init__(self, name: str, timeout_s: float) -> None:
        super().__init__(f"{name}: no answer within {timeout_s:g} s; check that it is up and reachable")


class Question(Generic[T]):
    """A function that is asked with a time limit, by one thread at a time.

    Args:
        name: Of the dependency, for the error.
    """

    def __init__(self, name: str, ask: Callable[[], T]) -> None:
        self._name = name
        self._ask = ask
        self._lock = threading.Lock()
        self._open: _Answer[T] | None = None

    def answer(self, timeout_s: float) -> T:
        """Return what the function returns, or raise what it raises.

        Callers that come while it is being asked share its answer.

        Raises:
            NoAnswer: it took longer.
        """
        with self._lock:
            if self._open is None:
                self._open = _Answer()
                threading.Thread(target=self._run, args=(self._open,), name=f"ask {self._name}", daemon=True).start()
            pending = self._open
        if not pending.ready.wait(timeout_s):
            raise NoAnswer(self._name, timeout_s)
        return pending.get()

    def _run(self, answer: _Answer[T]) -> None:
        try:
            answer.value = self._ask()
        except Exception as error:  # noqa: BLE001  handed to whoever asked
            answer.error = error
        with self._lock:
            self._open = None
        answer.ready.set()


class _Answer(Generic[T]):
    value: T
    error: Exception | None = None

    def __init__(self) -> None:
        self.ready = threading.Event()

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value
