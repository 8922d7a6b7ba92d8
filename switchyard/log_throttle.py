"""Throttled logging of a repeated operation: its first failure, one line a minute while it fails, its recovery."""

from __future__ import annotations

import time

from switchyard.loggers import get_logger

REPEAT_S = 60.0


class LogThrottle:
    """Log of one operation's failures, at most one line a minute for each kind of error."""

    def __init__(self, operation: str, logger: str = "switchyard.scheduler") -> None:
        self._operation = operation
        self._log = get_logger(logger)
        self._failing: str | None = None
        self._logged_s = 0.0

    def failed(self, error: Exception) -> None:
        """Log a failure, unless the same kind was logged within the last 60 s."""
        kind, now_s = type(error).__name__, time.monotonic()
        if kind != self._failing or now_s >= self._logged_s + REPEAT_S:
            self._log.error("failing, will be retried", what=self._operation, exc_info=error)
            self._logged_s = now_s
        self._failing = kind

    def succeeded(self) -> None:
        """Log the recovery if the last run failed."""
        if self._failing is not None:
            self._log.info("works again", what=self._operation)
        self._failing = None
