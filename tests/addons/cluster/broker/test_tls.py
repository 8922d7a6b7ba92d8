"""A cluster with TLS alone (``rediss+cluster://``): calls, moved slots, workers, and a certificate that is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls, calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.wiring import build_yard
from tests.addons.cluster.nodes import ClusterUnderTest
from tests.chaos.server import server_binary
from tests.tls import Authority
from tests.waiting import wait_for

# On three different nodes, as the slots of these names are.
QUEUES = ("b", "c", "a")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that clients trust."""
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def secure(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterUnderTest]:
    """Three masters of Redis that speak TLS alone."""
    folder = tmp_path_factory.mktemp("secure")
    with ClusterUnderTest(folder, binary=server_binary("redis-server"), authority=authority) as cluster:
        yield cluster


@pytest.fixture
def url(secure: ClusterUnderTest, authority: Authority) -> str:
    """Address of the cluster for a client that trusts the authority."""
    return f"{secure.url}?ssl_ca_certs={authority.file}"


@pytest.fixture
def calls(url: str) -> Iterator[RedisCalls]:
    """The access to the cluster."""
    calls = calls_on(connect(url))
    yield calls
    calls.close()


def test_every_node_is_asked_over_tls_and_a_moved_slot_is_followed(
    secure: ClusterUnderTest, calls: RedisCalls, url: str
) -> None:
    keys = [Keys("tls").queue(queue).token for queue in QUEUES]
    home = secure.owner(keys[0])

    answers = calls.pipeline([("SET", key, number) for number, key in enumerate(keys)])
    secure.move_one_by_one(keys[0], secure.another(home))
    moved = calls.command("GET", keys[0])

    assert answers == [b"OK"] * 3
    assert len({calls.place_of(key) for key in keys[1:]}) == 2
    assert moved == b"0"
    assert calls.place_of(keys[0]) != home.address
    with dict(calls.client.servers())[calls.place_of(keys[0])] as node:  # as the doctor asks one
        assert node.get(keys[0]) == b"0"
    secure.move_one_by_one(keys[0], home)


def test_a_certificate_of_an_unknown_authority_is_refused(secure: ClusterUnderTest, tmp_path: Path) -> None:
    another = Authority(tmp_path / "another")
    said = "CERTIFICATE_VERIFY_FAILED"

    for query in ("", f"?ssl_ca_certs={another.file}"):
        calls = calls_on(connect(f"{secure.url}{query}", profile="quick"), budget_s=0.3)
        with pytest.raises(BrokerUnavailable, match=said):
            calls.command("PING")
        with pytest.raises(BrokerUnavailable, match=said):
            calls.pipeline([("GET", Keys().queue("a").token)])
        with pytest.raises(BrokerUnavailable, match=said):
            calls.places()
        calls.close()


def test_workers_run_jobs_of_every_node_over_tls(url: str, run_worker: Any) -> None:
    queues = tuple(Queue(name, objective_ms=None, soft_limit_ms=5_000, hard_limit_ms=9_000) for name in QUEUES)
    yard = Yard(queues, (Pool("all", "threads", QUEUES, processes=1, slots=2, shared_retries=True),))
    broker = build_yard(yard, connect(url), Keys(f"test-{uuid.uuid4().hex[:8]}"))
    ran: list[str] = []
    lanes = [lane for queue in QUEUES for lane in (queue, f"{queue}-retry")]
    actors = [dramatiq.actor(ran.append, actor_name=f"run_{name}", queue_name=name, broker=broker) for name in QUEUES]

    with run_worker(*lanes, broker=broker):
        for actor, queue in zip(actors, QUEUES, strict=True):
            actor.send(queue)
        wait_for(lambda: len(ran) == len(QUEUES), what="a job of each queue ran")

    assert sorted(ran) == sorted(QUEUES)
