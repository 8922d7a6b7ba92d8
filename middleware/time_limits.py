"""Time limits: an exception is raised in a task that runs past its soft limit."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import TimeLimit, TimeLimitExceeded
from dramatiq.middleware.time_limit import _CtypesTimeoutManager

from broker.errors import UnknownQueue
from broker.topology import Yard

# How often deadlines are looked at, in threads; gevent sets a timer for each.
INTERVAL_MS = 250


class TimeLimits(TimeLimit):
    """Give every actor the soft limit of its queue, unless it names its own ``time_limit`` (ms).

    The exception arrives when the task next runs Python code: a call that stays in C is not interrupted. A system
    check refuses actors whose limit is missing or reaches the queue's hard limit.

    Listed last, so that the clock ticks for the task alone. An exception in a hook would end the worker's thread, and
    the message would be acknowledged without having been retried.
    """

    def __init__(self, *, yard: Yard) -> None:
        super().__init__(interval=INTERVAL_MS)
        self._yard = yard
        if isinstance(self.manager, _CtypesTimeoutManager):
            self.manager = _Deadlines(INTERVAL_MS)

    def before_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Let the actor inherit its queue's limit."""
        try:
            soft_limit_ms = self._yard.family(actor.queue_name).soft_limit_ms
        except UnknownQueue:
            return  # the system check names it
        actor.options.setdefault("time_limit", soft_limit_ms)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Stop the clock. A limit that is reached in this moment comes too late: the task has ended."""
        while True:
            try:
                self.manager.remove_timeout(threading.get_ident())
                return
            except TimeLimitExceeded:
                continue

    after_skip_message = after_process_message


class _Deadlines(_CtypesTimeoutManager):
    """Dramatiq's, which raises after it let go of its lock: in a task that ended meanwhile, or in the one after it."""

    def _handle_deadlines(self) -> None:
        with self.mu:
            super()._handle_deadlines()

    def remove_timeout(self, thread_id: int) -> None:
        """Stop a thread's clock. An exception is on its way only to one whose deadline is gone already."""
        with self.mu:
            if self.deadlines.get(thread_id) is None:
                _withdraw(thread_id)
            self.deadlines[thread_id] = None


def _withdraw(thread_id: int) -> None:
    """Forget an exception that was set for a thread and has not arrived."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), None)
