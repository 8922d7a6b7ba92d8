"""Loggers that load structlog with the first line: most commands log none, and it takes a tenth of their time."""

from __future__ import annotations

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


def get_logger(name: str) -> Any:
    """Return the logger of this name.

    Args:
        name: Its name in :mod:`logging`, such as ``switchyard.history``.
    """
    return LateLogger(name)
