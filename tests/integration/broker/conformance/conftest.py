"""Every test of this folder runs for each transport and kind of server; over TLS as a worker."""

from collections.abc import Iterator

import pytest
import redis

from switchyard.broker.redis import acl
from switchyard.broker.redis.connections import connect
from tests.chaos.server import ServerUnderTest, server_binary
from tests.integration.broker.conformance.subjects import SUBJECTS, Subject
from tests.sentinels import Watched
from tests.tls import Authority, GuardedServer

# The same transport, on other servers: the fixture with the address.
REACHED_BY = {"redis": "redis_url", "sentinel": "sentinels_url", "tls": "secure_url"}


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Redis 7 without users, TLS or sentinels."""
    with ServerUnderTest(tmp_path_factory.mktemp("redis") / "data", server_binary("redis-server")) as server:
        yield server.url


@pytest.fixture(scope="session")
def sentinels_url(sentinels: Watched) -> str:
    """Address of the master by its sentinels."""
    return sentinels.url


@pytest.fixture(scope="session")
def secure_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Redis with TLS alone, with a user that may do what a worker may, on keys of tests."""
    folder = tmp_path_factory.mktemp("secure")
    authority = Authority(folder / "authority")
    users = acl.line("worker", acl.roles()["worker"], prefix="test-*", user="tested").replace(" off ", " on >tested ")
    server = GuardedServer(folder / "server", server_binary("redis-server"), f"{users}\n", authority=authority)
    yield server.url("tested", f"?ssl_ca_certs={authority.file}")
    server.close()


@pytest.fixture(
    params=[
        *sorted(SUBJECTS),
        pytest.param("redis", marks=pytest.mark.needs("redis-server")),
        "sentinel",
        pytest.param("tls", marks=pytest.mark.needs("redis-server")),
    ]
)
def subject(request: pytest.FixtureRequest, valkey: redis.Redis) -> Iterator[Subject]:
    """A transport under test, with nothing in it."""
    if request.param in REACHED_BY:
        valkey = connect(request.getfixturevalue(REACHED_BY[request.param]))
        subject = SUBJECTS["atomic"](valkey, "atomic")
    else:
        subject = SUBJECTS[request.param](valkey, request.param)
    yield subject
    subject.close()
