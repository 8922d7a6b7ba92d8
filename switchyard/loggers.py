"""Loggers that load structlog with the first line: most commands log none, and it takes a tenth of their time."""

from collections.abc import Callable
from typing import Any


class LateLogger:
    """A logger of structlog that is made with its first line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: Any = None

    def __getattr__(self, method: str) -> Any:
        if self._logger is None:
            import structlog

            self._logger = structlog.get_logger(self._name)
        return getattr(self._logger, method)


# Returns the logger of a name in logging, such as switchyard.history.
get_logger: Callable[[str], Any] = LateLogger
