"""Wait for an event, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], timeout_s: float = 60.0, *, what: str = "") -> T:
    """Return the condition's first true value.

    Args:
        timeout_s: By default far more than it takes: a wait that succeeds costs nothing, and a busy machine is slow.

    Raises:
        AssertionError: it was not true within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}; last value {value!r}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)
