"""Every test of this folder runs once for each transport, on a cluster, and behind sentinels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from broker.redis.connections import connect
from tests.chaos.server import server_binary
from tests.integration.broker.conformance.subjects import SUBJECTS, Subject
from tests.sentinels import Watched


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A master with a replica and three sentinels."""
    with Watched(tmp_path_factory.mktemp("sentinels"), server_binary("valkey-server")) as servers:
        yield servers


@pytest.fixture(params=[*sorted(SUBJECTS), "rabbitmq", "sentinel"])
def subject(request: pytest.FixtureRequest, valkey: redis.Redis) -> Iterator[Subject]:
    """A transport under test, with nothing in it."""
    if request.param == "rabbitmq":
        subject = rabbit_subject(valkey, request.getfixturevalue("rabbitmq_server").url)
    elif request.param == "sentinel":
        valkey = connect(request.getfixturevalue("sentinels").url)
        subject = SUBJECTS["atomic"](valkey, "atomic")
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
