"""Setup of a child whose tasks are greenlets."""

from __future__ import annotations

import asyncio
from typing import Any

from dramatiq.broker import Broker

from switchyard.middleware.errors import PermanentFailure

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
    asyncio.set_event_loop_policy(LoopsElsewhere(hub))
    drop_event_loop(broker)


class LoopsElsewhere(asyncio.DefaultEventLoopPolicy):
    """Policy that refuses an event loop in the thread of a hub: while it waits, the other greenlets are inside of it.

    Django refuses its database to those, and asyncio another loop.
    """

    def __init__(self, hub: Any) -> None:
        super().__init__()
        self._hub = hub

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new loop, in another thread.

        Raises:
            PermanentFailure: this is the thread of the greenlets.
        """
        import gevent

        if gevent.get_hub() is self._hub:
            raise PermanentFailure(
                "this pool is of kind gevent, and an event loop (asyncio.run, async_to_sync) would run its other jobs "
                "too; write gevent.get_hub().threadpool.apply(asyncio.run, (main(),)), or send the actor to a queue of "
                "a pool of threads"
            )
        return super().new_event_loop()


def drop_event_loop(broker: Broker) -> None:
    """Remove asyncio from a broker: greenlets share one thread, and Django refuses its database where a loop runs."""
    from dramatiq.middleware import AsyncIO

    broker.middleware = [entry for entry in broker.middleware if not isinstance(entry, AsyncIO)]
