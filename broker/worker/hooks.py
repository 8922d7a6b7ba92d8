"""Which middleware has something to say to a signal, looked up once instead of for each message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dramatiq.middleware import Middleware

Hook = Callable[..., None]


class Hooks:
    """The hooks of a list of middleware, by name. They are found anew when the list has changed.

    With twenty entries, of which each cares for a few signals, calling them all for each of a message's eight signals
    costs more than many a task.
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
            hooks = self._named[name] = [(getattr(entry, name), entry) for entry in middleware if _cares(entry, name)]
        return hooks


def _cares(entry: Any, name: str) -> bool:
    return name in vars(entry) or getattr(type(entry), name, None) is not getattr(Middleware, name, None)
