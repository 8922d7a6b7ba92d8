"""A broker of three queues, each with an actor."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
import pytest

from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Pool, Queue, Yard

NAMES = ("first", "second", "third")


@pytest.fixture
def broker(yard_broker: Callable[..., RedisBroker]) -> RedisBroker:
    queues = tuple(Queue(name, 1_000, 5_000, 10_000) for name in NAMES)
    broker = yard_broker(Yard(queues=queues, pools=(Pool("work", "threads", NAMES, processes=1, slots=4),)))
    for name in NAMES:
        dramatiq.actor(lambda number: None, actor_name=f"job_{name}", queue_name=name, broker=broker)
    return broker
