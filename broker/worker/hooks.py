"""Cache of the overridden hooks of each signal, so that emit skips no-op methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dramatiq.middleware import Middleware

Hook = Callable[..., None]


class Hooks:
    """Overridden hooks of a list of middleware, by name. The cache is rebuilt when the list has changed.

    There are about twenty middleware and eight signals for each message; calling every no-op method costs more than
    running a short task.
    """

    def __init__(self) -> None:
        self._of: list[Middleware] = []
        self._named: dict[str, list[tuple[Hook, Middleware]]] = {}

    def named(self, name: str, middleware: list[Middleware]) -> list[tuple[Hook, Middleware]]:
        """Return the hooks ``name`` that are not the base class's empty ones, in the middleware's order."""
        if self._of != middleware:
            self._of, self._named = list(middleware), {}
        hooks = self._named.get(name)
        if hooks is None:
            hooks = self._named[name] = [(getattr(entry, name), entry) for entry in middleware if _has(entry, name)]
        return hooks


def _has(entry: Any, name: str) -> bool:
    return name in vars(entry) or getattr(type(entry), name, None) is not getattr(Middleware, name, None)
