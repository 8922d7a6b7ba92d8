"""Loggers that load structlog with the first line: most commands log none, and it takes a tenth of their time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

STRUCTLOG = "structlog"


def configure_structlog(configure: Callable[[], None]) -> None:
    """Call ``configure`` unless structlog is configured: at once if it is loaded, else when its import ends.

    A project's own code may import it at any later time, and has to find it configured.
    """
    loaded = sys.modules.get(STRUCTLOG)
    if loaded is None:
        sys.meta_path.insert(0, _EndOfImport(configure))
    elif not loaded.is_configured():
        configure()


class _EndOfImport(MetaPathFinder):
    """Import hook that finds structlog where it is, and has it configured before its importer goes on."""

    def __init__(self, configure: Callable[[], None]) -> None:
        self._configure = configure

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != STRUCTLOG:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_configure(module: ModuleType) -> None:
                execute(module)
                configure_structlog(self._configure)

            spec.loader.exec_module = execute_and_configure  # type: ignore[method-assign]
        return spec


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
