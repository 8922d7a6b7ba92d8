"""Brokers for tests that are not the project's own."""

from collections.abc import Iterator
from contextlib import contextmanager

import dramatiq
import redis
from dramatiq.broker import Broker

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.conf import declared_yard
from switchyard.wiring import build_yard


@contextmanager
def broker_without_server() -> Iterator[None]:
    """Make the global broker one whose server does not exist; its actors stay."""
    nobody = build_yard(declared_yard(), connect("redis://127.0.0.1:1", profile="quick"), Keys("away"))
    nobody.actors = dramatiq.get_broker().actors
    for calls in (nobody.calls, facilities(nobody).records.calls):
        _give_up_soon(calls)
    with the_global_broker(nobody):
        yield


def _give_up_soon(calls: RedisCalls) -> None:
    """Have every call end after a moment: no server comes while a test waits for one."""
    call = calls.call
    calls.budget_s = 0.2
    calls.call = lambda *args, **options: call(*args, **options | {"budget_s": 0.2})  # type: ignore[method-assign]


@contextmanager
def full(server: redis.Redis) -> Iterator[None]:
    """Make a server refuse every write, as a full one does."""
    server.config_set("maxmemory", 1)
    try:
        yield
    finally:
        server.config_set("maxmemory", 0)


@contextmanager
def the_global_broker(broker: Broker) -> Iterator[None]:
    before = dramatiq.get_broker()
    dramatiq.set_broker(broker)
    try:
        yield
    finally:
        dramatiq.set_broker(before)
