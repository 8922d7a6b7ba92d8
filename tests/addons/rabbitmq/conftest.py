"""A real server for all tests of the add-on, and brokers on it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from switchyard.broker.keys import Keys
from tests.addons.rabbitmq.server import RabbitServer, build_rabbit_yard
from tests.chaos.conftest import ledger as ledger
from tests.factories.yards import small_yard
from tests.tls import Authority


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory) -> Iterator[RabbitServer]:
    """A real RabbitMQ server, started when the first test asks for it."""
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture
def rabbit_yard(valkey, rabbitmq_server) -> Iterator[Callable[..., Any]]:
    """Build a broker with the whole stack of middleware for the small yard, on queues that are empty."""
    built: list[Any] = []

    def build(*, keys: str = "rabbit", empty: bool = True, **options: Any) -> Any:
        options = {"url": rabbitmq_server.url, **options}
        broker = build_rabbit_yard(small_yard(max_retries=1), valkey, Keys(f"test-{keys}"), **options)
        if empty and not built:
            for lane in broker.switchyard.yard.lanes:
                broker.flush(lane)
        built.append(broker)
        return broker

    yield build
    for broker in built:
        broker.close()
