"""State of a process that gevent patched."""

from __future__ import annotations

import sys


def is_patched() -> bool:
    """Return whether gevent patched this process before anything else was loaded."""
    return "gevent.monkey" in sys.modules and bool(sys.modules["gevent.monkey"].is_module_patched("threading"))


def reinit_after_fork() -> None:
    """Give a forked process an event loop of its own, before it waits for anything."""
    if is_patched():
        import gevent

        gevent.reinit()
