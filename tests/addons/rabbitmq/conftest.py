"""A real server for all tests of the add-on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.addons.rabbitmq.server import RabbitServer


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A real RabbitMQ server, started when the first test asks for it."""
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq")).start()
    yield server
    server.stop()
