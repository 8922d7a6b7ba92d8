"""Act on a module when a process imports it, and ask gevent's what it patched, without importing them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def is_patched() -> bool:
    """Return whether gevent patched this process before anything else was loaded."""
    return "gevent.monkey" in sys.modules and bool(sys.modules["gevent.monkey"].is_module_patched("threading"))


def once_imported(name: str, act: Callable[[], None]) -> None:
    """Call ``act`` at once if a module is loaded, else when it is, before the code that imports it goes on."""
    if name in sys.modules:
        act()
    else:
        sys.meta_path.insert(0, _EndOfImport(name, act))


class _EndOfImport(MetaPathFinder):
    """Import hook that has its module found and loaded as ever."""

    def __init__(self, name: str, act: Callable[[], None]) -> None:
        self._name = name
        self._act = act

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_act(module: ModuleType) -> None:
                execute(module)
                self._act()

            spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec
