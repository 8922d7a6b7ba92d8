"""What a process of greenlets does differently around a fork."""

from __future__ import annotations

import sys

from dramatiq.broker import Broker

# Names are looked up in real threads, ten by default.
LOOKUPS = 10


def is_patched() -> bool:
    """Say whether this process was patched by gevent before it loaded anything."""
    return "gevent.monkey" in sys.modules and bool(sys.modules["gevent.monkey"].is_module_patched("threading"))


def after_fork() -> None:
    """Give a forked process an event loop of its own, before it waits for anything."""
    if is_patched():
        import gevent

        gevent.reinit()


def become_child(broker: Broker, slots: int) -> None:
    """Make a forked or executed process one whose tasks are greenlets.

    Args:
        slots: Names that never resolve would hold up every other slot, were there fewer threads that look them up.
    """
    import gevent
    from gevent import monkey

    # Their parents wait for their processes themselves, and have no threads; tasks may have both.
    monkey.patch_os()
    monkey.patch_signal()
    gevent.config.resolver = "thread"
    hub = gevent.get_hub()
    del hub.resolver
    hub.threadpool.maxsize = max(LOOKUPS, slots)
    drop_event_loop(broker)


def drop_event_loop(broker: Broker) -> None:
    """Take asyncio from a broker: greenlets share one thread, and Django refuses its database where a loop runs."""
    from dramatiq.middleware import AsyncIO

    broker.middleware = [entry for entry in broker.middleware if not isinstance(entry, AsyncIO)]
