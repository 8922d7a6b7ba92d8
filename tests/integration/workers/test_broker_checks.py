"""The broker's server is asked whether it keeps work: before a start, and by pools on one that becomes unsafe."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.test import override_settings

from switchyard.broker.errors import BrokerUnsafe
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.embedded.server import EmbeddedServer
from switchyard.workers.checks.installation import unsafe_server
from switchyard.workers.preflight import mark_keyspace
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for


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


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "bench").mkdir()
    with EmbeddedServer(tmp_path / "valkey") as server:
        bench = Bench(server.url, tmp_path / "bench")
        yield bench
        bench.stop_all()


def test_no_pool_starts_on_a_server_with_an_evicting_policy(own: Bench) -> None:
    own.client.config_set("maxmemory-policy", "allkeys-lru")  # all of them: test_broker_checks.py

    process = own.start("runpool", "urgent")

    assert process.wait(60) == 78
    [line] = [line for line in own.log().splitlines() if "refused to start" in line]
    assert "allkeys-lru" in line and "CONFIG SET maxmemory-policy noeviction" in line
    assert own.client.dbsize() == 0


@pytest.mark.parametrize("within_s", [60.0, pytest.param(15.0, marks=pytest.mark.long)])
def test_an_evicting_policy_stops_enqueuing_within_15_s_and_an_emptied_keyspace_pauses_until_it_is_accepted(
    own: Bench, within_s: float
) -> None:
    pools = own.up("runpools", "urgent", "slow", "--no-history")
    own.ran("urgent")

    own.client.config_set("maxmemory-policy", "allkeys-lru")
    took_s = refused_after_s(own)
    own.client.config_set("maxmemory-policy", "noeviction")
    print(f"enqueuing stopped {took_s:.1f} s after the policy was set")
    assert took_s < within_s
    second = wait_for(lambda: accepted(own), within_s, what="enqueuing goes on")
    wait_for(lambda: own.ended(second))

    running = own.begun("slow", ms=8_000)
    own.client.flushdb()
    flushed_s = time.monotonic()
    own.wait_for_log("pool urgent: paused, it fetches nothing", within_s)
    print(f"noticed {time.monotonic() - flushed_s:.1f} s after FLUSHDB")
    report = wait_for(lambda: (found := own.report("urgent")) and not found.children and found)
    token = own.send("urgent")
    assert report.state == "paused"
    assert own.waiting("urgent") == 1
    assert not own.client.exists(Keys().generation())
    wait_for(lambda: own.ended(running), what="a job that ran may end")

    accept = own.start("broker", "accept", log="accept")
    assert accept.wait(60) == 0
    wait_for(lambda: own.ended(token), within_s, what="the waiting job runs")
    assert own.log().count("pool urgent: paused, it fetches nothing") == 1
    pools.send_signal(signal.SIGTERM)
    assert pools.wait(60) == 0


def refused_after_s(bench: Bench) -> float:
    started_s = time.monotonic()
    wait_for(lambda: accepted(bench) is None, what="enqueuing is refused")
    return time.monotonic() - started_s


def accepted(bench: Bench) -> str | None:
    try:
        return bench.send("urgent")
    except BrokerUnsafe:
        return None
