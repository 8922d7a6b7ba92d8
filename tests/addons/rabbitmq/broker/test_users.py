"""``amqps://``, whose refusal says what it was, and the Redis beside RabbitMQ with a user for each role."""

from collections.abc import Iterator

import dramatiq
import pytest

from switchyard.addons.rabbitmq.unique_claims import rights
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.redis import acl
from switchyard.broker.redis.connections import connect
from tests.addons.rabbitmq.server import RabbitServer, build_rabbit_yard
from tests.chaos.server import server_binary
from tests.factories.yards import small_yard
from tests.tls import GuardedServer
from tests.waiting import wait_for

DAY_MS = 24 * 3_600_000


@pytest.fixture(scope="module")
def guarded(authority, tmp_path_factory) -> Iterator[RabbitServer]:
    """A server that takes TLS, with a certificate for 127.0.0.1."""
    certificate = (authority.file, *authority.issue("server"))
    server = RabbitServer(tmp_path_factory.mktemp("guarded"), certificate=certificate).start()
    yield server
    server.stop()


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_job_runs_over_tls_where_the_authority_is_trusted(rabbit_yard, guarded, authority, run_worker, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    broker, ran = rabbit_yard(keys="tls", url=guarded.secure_url, empty=False), []
    job = dramatiq.actor(lambda: ran.append(1), broker=broker, queue_name="work", actor_name="job")

    with run_worker(broker=broker):
        id_ = job.send().message_id
        wait_for(lambda: broker.switchyard.records.read(id_).state == "succeeded")

    assert ran == [1]


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("host", "said"),
    [
        pytest.param("127.0.0.1", r"certificate verify failed.* SSL_CERT_FILE", id="an unknown authority"),
        pytest.param("localhost", r"Hostname mismatch.* name a host", id="another host"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused(rabbit_yard, guarded, authority, monkeypatch, host, said):
    if host == "localhost":
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    broker = rabbit_yard(keys="tls", url=guarded.secure_url.replace("127.0.0.1", host), empty=False)

    with pytest.raises(BrokerUnavailable, match=said):
        broker.enqueue(dramatiq.Message("work", "job", (), {}, {}))


def test_a_producer_and_a_worker_have_the_rights_that_they_need(rabbit_yard, rabbitmq_server, run_worker, tmp_path):
    rabbit_yard()  # empties the queues
    roles = rights(acl.roles([Keys().queue("work")]))
    lines = [acl.line(name, role, prefix="test-rabbit", user=name) for name, role in roles.items()]
    users = "".join(f"{line.replace(' off ', f' on >{name} ')}\n" for line, name in zip(lines, roles, strict=True))
    server, url = GuardedServer(tmp_path / "server", server_binary("redis-server"), users), rabbitmq_server.url
    producer, worker = (
        build_rabbit_yard(small_yard(max_retries=1), connect(server.url(role)), Keys("test-rabbit"), url=url)
        for role in ("producer", "worker")
    )
    try:
        for broker in (producer, worker):
            dramatiq.actor(lambda: None, broker=broker, queue_name="work", actor_name="job")
        job = producer.actors["job"]
        sent = producer.enqueue(job.message()).message_id
        later = producer.enqueue(job.message(), delay=DAY_MS).message_id
        held = [producer.enqueue(job.message_with_options(unique_key="one")).message_id for _ in range(2)]
        found = worker.switchyard.records
        with run_worker("work", "work-retry", broker=worker):
            wait_for(lambda: (record := found.read(sent)) is not None and record.state == "succeeded")
        waiting = producer.switchyard.records.read(later)
        with connect(server.url()) as admin:
            log = admin.execute_command("ACL", "LOG")
    finally:
        for broker in (producer, worker):
            broker.close()
        server.close()

    assert log == []
    assert waiting is not None and waiting.state == "scheduled"
    assert held[0] == held[1]
