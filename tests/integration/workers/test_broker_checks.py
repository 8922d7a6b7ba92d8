"""The broker's server is asked whether it keeps work: with the real thing, also when it is away or silent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis
from django.conf import settings
from django.test import override_settings

from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.embedded.server import EmbeddedServer
from switchyard.workers.checks.servers import unsafe_server
from switchyard.workers.preflight import mark_keyspace


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server whose settings these tests may change."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def admin(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client that puts things right afterwards."""
    client = connect(server.url)
    yield client
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("appendonly", "yes")
    client.config_set("save", "")
    client.close()


def ids(url: str, *, debug: bool = False) -> list[str | None]:
    return [message.id for message in unsafe_server(url, debug=debug)]


def test_a_server_that_evicts_is_refused_everywhere(server: EmbeddedServer, admin: redis.Redis) -> None:
    admin.config_set("maxmemory-policy", "volatile-ttl")

    [message] = unsafe_server(server.url, debug=True)

    assert message.id == "switchyard.E015"
    assert "CONFIG SET maxmemory-policy noeviction" in str(message.hint)


def test_snapshots_alone_are_a_warning_in_production(server: EmbeddedServer, admin: redis.Redis) -> None:
    admin.config_set("appendonly", "no")
    admin.config_set("save", "3600 1")

    [message] = unsafe_server(server.url, debug=False)

    assert message.id == "switchyard.W003" and not message.is_serious()
    assert ids(server.url, debug=True) == []


def test_a_wrong_password_is_told_as_one(server: EmbeddedServer) -> None:
    [message] = unsafe_server(f"redis://:wrong@127.0.0.1:{server.port}/0", debug=True)

    assert message.msg == "the server refuses the login; eviction and persistence were not checked"
    assert message.hint == (
        "Check user and password in SWITCHYARD_BROKER_URL and that replicas and other nodes have the same users."
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://127.0.0.1:1/0", "connection refused, nothing listens there"),
        ("redis://valkey.invalid:6379/0", "the name of its host does not resolve"),
        ("redis+sentinel://127.0.0.1:1/yard/0", "no sentinel names the master"),
    ],
)
def test_a_server_that_is_not_reached_is_told_with_the_reason(url: str, why: str) -> None:
    [message] = unsafe_server(url, debug=True)

    assert message.msg == f"the server does not answer ({why}); eviction and persistence were not checked"


def test_a_start_marks_a_new_keyspace_and_tells_of_one_in_use(server: EmbeddedServer, admin: redis.Redis) -> None:
    admin.flushdb()
    with override_settings(SWITCHYARD=replace(settings.SWITCHYARD, broker_url=server.url)):
        assert mark_keyspace() == []
        marker = admin.hget(Keys().generation(), "id")
        assert mark_keyspace() == [] and admin.hget(Keys().generation(), "id") == marker

        admin.flushdb()
        admin.rpush(Keys().queue("default").waiting("live")[1], "a")
        [message] = mark_keyspace()

    assert message.id == "switchyard.W006" and "manage.py switchyard broker accept" in str(message.hint)
    assert marker and not admin.exists(Keys().generation())


def test_work_sent_before_the_first_pool_is_no_finding_in_development(
    server: EmbeddedServer, admin: redis.Redis
) -> None:
    admin.flushdb()
    admin.rpush(Keys().queue("default").waiting("live")[1], "a")
    with override_settings(DEBUG=True, SWITCHYARD=replace(settings.SWITCHYARD, broker_url=server.url)):
        assert mark_keyspace() == []
        assert admin.hget(Keys().generation(), "id")

        admin.delete(Keys().generation())
        admin.sadd(Keys().generations_missed(), "another")
        [message] = mark_keyspace()

    assert message.id == "switchyard.W006"
