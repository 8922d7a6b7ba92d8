"""The transport under test, on quorum queues and on classic ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.addons.rabbitmq.conformance.subject import Rabbit
from tests.addons.rabbitmq.server import RabbitServer


@pytest.fixture(params=["quorum", pytest.param("classic", marks=pytest.mark.long)])
def subject(request: pytest.FixtureRequest, valkey: redis.Redis, rabbitmq_server: RabbitServer) -> Iterator[Rabbit]:
    """The transport, with nothing in it."""
    subject = Rabbit(valkey, rabbitmq_server.url, request.param)
    yield subject
    subject.close()
