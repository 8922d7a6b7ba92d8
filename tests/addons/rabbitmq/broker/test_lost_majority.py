"""Three nodes of RabbitMQ that lose one and then most: the room, the doctor and /readyz say which it is."""

import dataclasses
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dramatiq
import pika
import pytest
from django.conf import settings
from django.test import Client, override_settings

from switchyard.addons.rabbitmq.findings import look_at_rabbitmq
from switchyard.broker.keys import Keys
from switchyard.conf import declared_yard
from switchyard.operations.findings.examine import run_checks
from switchyard.operations.findings.finding import FindingGroup
from switchyard.operations.queries import yard_state
from tests.addons.rabbitmq.server import RabbitServer, build_rabbit_yard, settings_of
from tests.integration.doctor.conftest import of
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # A connection that is given up leaves pika's socket to the garbage collection.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]
EMPTY = "switchyard.EMPTY"


@pytest.fixture
def nodes(tmp_path) -> Iterator[tuple[RabbitServer, ...]]:
    first = RabbitServer(tmp_path / "0").start()
    others = [RabbitServer(tmp_path / str(number), beside=first) for number in (1, 2)]
    try:
        start(*others)
        yield first, *others
    finally:
        for node in (*others, first):
            node.stop()
        gc.collect()  # here, where the warning is ignored


@pytest.fixture
def yard_on(valkey) -> Iterator[Any]:
    """Put the project's yard on a node: ``yard_on(node.url, queue_type="classic")``."""
    before, built = dramatiq.get_broker(), list[Any]()

    def build(url: str, queue_type: str = "quorum") -> Any:
        broker = build_rabbit_yard(declared_yard(), valkey, Keys(), url=url, queue_type=queue_type)
        dramatiq.set_broker(broker)
        built.append(broker)
        return broker

    yield build
    dramatiq.set_broker(before)
    for broker in built:
        broker.close()


def start(*nodes: RabbitServer) -> None:
    with ThreadPoolExecutor() as threads:
        list(threads.map(RabbitServer.start, nodes))


def readiness() -> tuple[int, str]:
    """Return the status of /readyz, and what it says about the broker."""
    answer = Client().get("/readyz")
    return answer.status_code, answer.json()["dependencies"]["broker"]["fact"]


def examined(node: RabbitServer) -> dict[str, Any]:
    with override_settings(SWITCHYARD=dataclasses.replace(settings.SWITCHYARD, **settings_of(node.url))):
        return of(run_checks(FindingGroup("broker"), look_at_rabbitmq, 4.0), "error")


def has_queue(server: RabbitServer, name: str) -> bool:
    with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
        try:
            connection.channel().queue_declare(name, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
    return True


def message(number: int) -> dramatiq.Message[Any]:
    return dramatiq.Message("default", "job", (number,), {}, {}, message_id=f"00000000-0000-4000-8000-{number:012}")


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("leads", ["the node that is left", "a node that is lost"])
def test_a_lost_majority_is_told_until_it_is_back(nodes, yard_on, leads):
    first, *others = nodes
    queue_creator = first if leads == "the node that is left" else others[0]
    assert yard_on(queue_creator.url).switchyard.transport.refusal() == ("", "")  # leads its queue
    broker = yard_on(first.url)
    broker.enqueue(message(1))
    assert yard_state().server.refusal == ""  # declares every queue

    assert readiness() == (200, "answers")
    assert examined(first) == {}

    others[0].kill()
    assert readiness() == (200, "answers")
    assert examined(first) == {}

    start(others[0])
    wait_for(lambda: broker.switchyard.transport.refusal() == ("", ""))
    for node in others:
        node.kill()
    status, fact = readiness()
    assert (status, fact.partition(": ")[0]) == (503, "accepts no work")
    assert "most nodes of RabbitMQ are away" in fact
    found = examined(first)["takes_no_work"]
    assert "quorum queues confirm nothing" in found.seen and "rabbitmqctl cluster_status" in found.next
    assert "most nodes of RabbitMQ" in yard_state().server.refusal

    start(*others)
    wait_for(lambda: readiness()[0] == 200)
    assert examined(first) == {}
    assert yard_state().server.refusal == ""
    broker.enqueue(message(2))
    wait_for(lambda: broker.count([("default", "switchyard.default")]) == [2])
    with broker.publishers.channel() as channel:
        assert channel.queue_declare(EMPTY, passive=True).method.message_count == 0


def test_a_server_of_one_node_is_ready_and_one_that_is_away_is_not(rabbitmq_server, yard_on):
    yard_on(rabbitmq_server.url)

    assert readiness() == (200, "answers")
    assert examined(rabbitmq_server) == {}
    yard_on("amqp://guest:guest@127.0.0.1:1/")
    assert readiness() == (503, "AMQPConnectionError")


def test_classic_queues_are_asked_nothing(rabbitmq_server, yard_on):
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url)) as connection:
        connection.channel().queue_delete(EMPTY)
    yard_on(rabbitmq_server.url, queue_type="classic")

    assert readiness() == (200, "answers")
    assert not has_queue(rabbitmq_server, EMPTY)
