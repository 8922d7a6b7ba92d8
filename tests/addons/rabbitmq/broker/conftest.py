"""Brokers on a real RabbitMQ server, with queues that are empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from switchyard.broker.keys import Keys
from tests.addons.rabbitmq.yards import build_rabbit_yard
from tests.factories.yards import small_yard


@pytest.fixture
def rabbit_yard(valkey: redis.Redis, rabbitmq_server: Any) -> Iterator[Callable[..., Any]]:
    """Build a broker with the whole stack of middleware for the small yard."""
    built: list[Any] = []

    def build(*, keys: str = "rabbit", **options: Any) -> Any:
        options = {"url": rabbitmq_server.url, **options}
        broker = build_rabbit_yard(small_yard(max_retries=1), valkey, Keys(f"test-{keys}"), **options)
        if not built:
            for lane in broker.switchyard.yard.lanes:
                broker.flush(lane)
        built.append(broker)
        return broker

    yield build
    for broker in built:
        broker.close()
