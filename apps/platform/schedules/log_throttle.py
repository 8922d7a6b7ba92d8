"""Say that something fails when it begins, once a minute while it lasts, and when it is over."""

from __future__ import annotations

import time

import structlog

AGAIN_S = 60.0
log = structlog.get_logger("switchyard.scheduler")


class LogThrottle:
    """The log of one thing that is tried again and again.

    Args:
        what: Name of the thing.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._failing: str | None = None
        self._said_s = 0.0

    def failed(self, error: Exception) -> None:
        """Log a failure, unless the same kind was logged within the last minute."""
        kind, now_s = type(error).__name__, time.monotonic()
        if kind != self._failing or now_s >= self._said_s + AGAIN_S:
            log.error("failing, will be tried again", what=self._what, exc_info=error)
            self._said_s = now_s
        self._failing = kind

    def fine(self) -> None:
        """Log that it works again."""
        if self._failing is not None:
            log.info("works again", what=self._what)
        self._failing = None
