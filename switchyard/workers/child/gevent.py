"""Setup of a child whose tasks are greenlets."""

from __future__ import annotations

from dramatiq.broker import Broker

# Gevent resolves host names in real threads, 10 by default.
RESOLVER_THREADS = 10


def become_child(broker: Broker, slots: int) -> None:
    """Set up a forked or executed process to run its tasks in greenlets.

    Args:
        slots: Number of resolver threads, one for each slot, so that a name that never resolves blocks no other slot.
    """
    import gevent
    from gevent import monkey

    # The parents leave these modules unpatched: they wait for processes and have no threads. Tasks may need both.
    monkey.patch_os()
    monkey.patch_signal()
    gevent.config.resolver = "thread"
    hub = gevent.get_hub()
    # A greenlet that a task left must not end the process by a ``sys.exit()``.
    hub.SYSTEM_ERROR = (SystemError,)
    del hub.resolver
    hub.threadpool.maxsize = max(RESOLVER_THREADS, slots)
    drop_event_loop(broker)


def drop_event_loop(broker: Broker) -> None:
    """Remove asyncio from a broker: greenlets share one thread, and Django refuses its database where a loop runs."""
    from dramatiq.middleware import AsyncIO

    broker.middleware = [entry for entry in broker.middleware if not isinstance(entry, AsyncIO)]
