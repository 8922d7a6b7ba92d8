"""Depth limits of queues. What follows a job (retries, callbacks, pipeline steps) is not held to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_lifted: ContextVar[bool] = ContextVar("switchyard_limits_lifted", default=False)


@contextmanager
def limits_lifted() -> Iterator[None]:
    """Let the current thread enqueue into full queues: a step that follows a job, never work that is new.

    A worker that waited for room instead might wait for itself.
    """
    token = _lifted.set(True)
    try:
        yield
    finally:
        _lifted.reset(token)


# Whether what the current thread enqueues follows a job: refusing it would lose it. Read at each send.
follows_a_job: Final[Callable[[], bool]] = _lifted.get


class DepthLimits:
    """Messages that queues may hold, waiting or scheduled, by name; others hold any number."""

    def __init__(self, depths: Mapping[str, int]) -> None:
        self._depths = dict(depths)

    def of(self, queue_name: str) -> int:
        """Return the limit for the current thread, 0 for none."""
        depth = self._depths.get(queue_name, 0)
        return 0 if depth == 0 or _lifted.get() else depth
