"""Servers of a test's own, whose settings it may change: Valkey and Redis, a cluster, and behind sentinels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from broker.redis.calls import RedisCalls
from broker.redis.hash_slots import slot_of
from tests.chaos.cluster import ClusterUnderTest
from tests.chaos.server import SERVER_NAMES, ServerUnderTest, server_binary
from tests.sentinels import Watched


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
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterUnderTest]:
    """A cluster of three masters for all tests; each moves back what it moves."""
    with ClusterUnderTest(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A master with a replica and three sentinels, for all tests; each leaves them as they were."""
    with Watched(tmp_path_factory.mktemp("sentinels"), server_binary("valkey-server")) as servers:
        yield servers


class SpreadKeys(AssertionError):
    """Keys of one call have different hash tags: on a cluster they would be on different nodes."""


def require_one_slot(name: str, keys: Sequence[Any]) -> None:
    """Refuse keys of more than one hash slot.

    Raises:
        SpreadKeys: they have several.
    """
    if not any("{" in str(key) for key in keys):
        return  # of a family that a test made by itself
    # A single server has one marker for all queues, without a hash tag; a cluster has one for each family.
    if len({slot_of(key) for key in keys}) > 1 and name not in ("generation_make", "generation_accept"):
        raise SpreadKeys(f"{name}: {', '.join(map(str, keys))}")


@pytest.fixture(autouse=True)
def one_slot_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every call whose keys span hash slots, on the single server of a test too."""
    call, stream, command, pipeline = RedisCalls.call, RedisCalls.stream, RedisCalls.command, RedisCalls.pipeline

    def checked_call(self: RedisCalls, operation: Any, keys: Any, *args: Any, **options: Any) -> Any:
        require_one_slot(operation.name, keys)
        return call(self, operation, keys, *args, **options)

    def checked_stream(self: RedisCalls, operation: Any, calls: Any, **options: Any) -> Any:
        def checked() -> Iterator[Any]:
            for keys, args in calls:
                require_one_slot(operation.name, keys)
                yield keys, args

        return stream(self, operation, checked(), **options)

    def checked_command(self: RedisCalls, *words: Any, **options: Any) -> Any:
        require_one_slot(str(words[0]), keys_of(words))
        return command(self, *words, **options)

    def checked_pipeline(self: RedisCalls, commands: Any, **options: Any) -> Any:
        for words in commands:
            require_one_slot(str(words[0]), keys_of(words))
        return pipeline(self, commands, **options)

    monkeypatch.setattr(RedisCalls, "call", checked_call)
    monkeypatch.setattr(RedisCalls, "stream", checked_stream)
    monkeypatch.setattr(RedisCalls, "command", checked_command)
    monkeypatch.setattr(RedisCalls, "pipeline", checked_pipeline)


def keys_of(words: Sequence[Any]) -> Sequence[Any]:
    """Return all keys of a command that may have several."""
    if words[0] in ("EVAL", "EVALSHA"):
        return words[3 : 3 + words[2]]
    return words[1:] if words[0] in ("MGET", "DEL", "UNLINK", "EXISTS") else ()
