"""``amqps://``: the server's certificate and name are verified, and a refusal says which it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from tests.addons.rabbitmq.server import RabbitServer
from tests.addons.rabbitmq.yards import build_rabbit_yard
from tests.factories.yards import small_yard
from tests.tls import Authority
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]
Build = Callable[[str], Any]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def guarded(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A server that takes TLS, with a certificate for 127.0.0.1."""
    certificate = (authority.file, *authority.issue("server"))
    server = RabbitServer(tmp_path_factory.mktemp("guarded"), certificate=certificate).start()
    yield server
    server.stop()


@pytest.fixture
def yard_on(valkey: redis.Redis) -> Iterator[Build]:
    built: list[Any] = []

    def build(url: str) -> Any:
        built.append(build_rabbit_yard(small_yard(), valkey, Keys("test-tls"), url=url))
        return built[-1]

    yield build
    for broker in built:
        broker.close()


def test_a_job_runs_over_tls_where_the_authority_is_trusted(
    yard_on: Build, guarded: RabbitServer, authority: Authority, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    broker, ran = yard_on(guarded.secure_url), []
    job = dramatiq.actor(lambda: ran.append(1), broker=broker, queue_name="work", actor_name="job")

    with run_worker(broker=broker):
        id_ = job.send().message_id
        wait_for(lambda: broker.switchyard.records.read(id_).state == "succeeded")

    assert ran == [1]


def test_an_unknown_authority_is_refused(yard_on: Build, guarded: RabbitServer) -> None:
    broker = yard_on(guarded.secure_url)

    with pytest.raises(BrokerUnavailable, match=r"certificate verify failed.* SSL_CERT_FILE"):
        broker.enqueue(dramatiq.Message("work", "job", (), {}, {}))


def test_a_certificate_of_another_host_is_refused(
    yard_on: Build, guarded: RabbitServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    broker = yard_on(guarded.secure_url.replace("127.0.0.1", "localhost"))

    with pytest.raises(BrokerUnavailable, match=r"Hostname mismatch.* name a host"):
        broker.enqueue(dramatiq.Message("work", "job", (), {}, {}))
