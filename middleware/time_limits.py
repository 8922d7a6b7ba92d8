"""Time limits: an exception is raised in a task that runs past its soft limit."""

from __future__ import annotations

from typing import Any

from dramatiq.actor import Actor
from dramatiq.broker import Broker
from dramatiq.middleware import TimeLimit

from broker.errors import UnknownQueue
from broker.topology import Yard

# How often deadlines are looked at, in threads; gevent sets a timer for each.
INTERVAL_MS = 250


class TimeLimits(TimeLimit):
    """Give every actor the soft limit of its queue, unless it names its own ``time_limit`` (ms).

    The exception arrives when the task next runs Python code: a call that stays in C is not interrupted. A system
    check refuses actors whose limit is missing or reaches the queue's hard limit.
    """

    def __init__(self, *, yard: Yard) -> None:
        super().__init__(interval=INTERVAL_MS)
        self._yard = yard

    def before_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Let the actor inherit its queue's limit."""
        try:
            soft_limit_ms = self._yard.family(actor.queue_name).soft_limit_ms
        except UnknownQueue:
            return  # the system check names it
        actor.options.setdefault("time_limit", soft_limit_ms)
