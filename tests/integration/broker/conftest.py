"""A small yard's broker and queue family, and servers of a test's own: Valkey and Redis, and behind sentinels."""

import uuid
from collections.abc import Iterator

import pytest
import redis

from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis_broker import RedisBroker
from tests.chaos.server import SERVER_NAMES, ServerUnderTest, server_binary
from tests.conftest import BuildBroker
from tests.factories.yards import small_yard
from tests.sentinels import Watched


@pytest.fixture
def broker(yard_broker: BuildBroker) -> RedisBroker:
    return yard_broker(small_yard())


@pytest.fixture
def family(valkey: redis.Redis) -> QueueOperations:
    return QueueOperations(RedisCalls(valkey), Keys(f"test-{uuid.uuid4().hex[:8]}").queue("work"))


@pytest.fixture(scope="module", params=SERVER_NAMES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """A server for all tests of a module; each leaves its settings as they were."""
    with ServerUnderTest(tmp_path_factory.mktemp("server") / "data", server_binary(request.param)) as server:
        yield server


@pytest.fixture
def emptied(server: ServerUnderTest) -> Iterator[ServerUnderTest]:
    """The module's server with nothing in it, and as it was configured afterwards."""
    server.admin.flushall()
    yield server
    server.admin.execute_command("REPLICAOF", "NO", "ONE")
    for name, value in (("maxmemory", 0), ("maxmemory-policy", "noeviction"), ("appendonly", "yes"), ("save", "")):
        server.config_set(name, value)


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A master with a replica and three sentinels, for all tests; each leaves them as they were."""
    with Watched(tmp_path_factory.mktemp("sentinels"), server_binary("valkey-server")) as servers:
        yield servers
