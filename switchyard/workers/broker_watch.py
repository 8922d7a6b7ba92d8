"""Watch over the yard's broker server, for processes with a loop: supervisors, the scheduler, the web."""

from __future__ import annotations

from django.conf import settings

from switchyard.broker.health.watch import Watch
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.conf import declared_yard, switchyard_settings


def make_watch() -> Watch:
    """Return a watch with a connection of its own, which is not thread-safe."""
    own = switchyard_settings()
    calls = calls_on(connect(own.broker_url, profile="quick", absence=own.absence), budget_s=1.0)
    queues = [queue.name for queue in declared_yard().queues]
    return Watch(calls, declared_yard().keys, queues, production=not settings.DEBUG)
