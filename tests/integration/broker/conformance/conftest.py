"""Every test of this folder runs once for each transport, and on a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from broker.redis.connections import connect
from tests.integration.broker.conformance.subjects import SUBJECTS, Subject


@pytest.fixture(params=[*sorted(SUBJECTS), "rabbitmq"])
def subject(request: pytest.FixtureRequest, valkey: redis.Redis) -> Iterator[Subject]:
    """A transport under test, with nothing in it."""
    if request.param == "rabbitmq":
        subject = rabbit_subject(valkey, request.getfixturevalue("rabbitmq_server").url)
    else:
        if request.param == "cluster":
            valkey = connect(request.getfixturevalue("cluster").url)
        subject = SUBJECTS[request.param](valkey, request.param)
    yield subject
    subject.close()


def rabbit_subject(client: redis.Redis, url: str) -> Subject:
    """Return the transport on RabbitMQ; its module needs pika, which the others do without."""
    from tests.integration.broker.conformance.rabbit import Rabbit

    return Rabbit(client, url)
