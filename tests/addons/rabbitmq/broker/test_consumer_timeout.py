"""RabbitMQ's consumer timeout, set to seconds: what the check allows runs once, and what it refuses runs twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis

from switchyard.broker.keys import Keys
from tests.addons.rabbitmq.server import RabbitServer
from tests.addons.rabbitmq.yards import build_rabbit_yard
from tests.factories.yards import small_yard
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]
TIMEOUT_S = 4


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A server that takes back what a worker holds for longer than 4 s."""
    server = RabbitServer(tmp_path_factory.mktemp("impatient"), consumer_timeout_s=TIMEOUT_S).start()
    yield server
    server.stop()


@pytest.fixture
def yard_on(impatient: RabbitServer, valkey: redis.Redis) -> Iterator[Callable[[], Any]]:
    """Build brokers of one yard that know the server's timeout."""
    built: list[Any] = []

    def build() -> Any:
        broker = build_rabbit_yard(
            small_yard(max_retries=1), valkey, Keys("test-timeout"), url=impatient.url, consumer_timeout_s=TIMEOUT_S
        )
        built.append(broker)
        return broker

    yield build
    for broker in built:
        broker.close()


def test_tasks_of_half_of_the_timeout_run_once_however_long_they_wait(
    yard_on: Callable[[], Any], run_worker: Any
) -> None:
    broker, ran = yard_on(), Counter[int]()

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None:
        ran[number] += 1
        threading.Event().wait(TIMEOUT_S / 2 - 0.2)

    with run_worker(broker=broker, threads=1):
        ids = [job.send(number).message_id for number in range(6)]
        wait_for(lambda: all(broker.switchyard.records.read(id_).state == "succeeded" for id_ in ids))

    assert ran == Counter(range(6))
    assert broker.lane_stats("work").waiting == 0


def test_a_task_longer_than_the_timeout_is_given_to_another_worker_as_well(
    yard_on: Callable[[], Any], run_worker: Any
) -> None:
    first, second, starts = yard_on(), yard_on(), list[float]()
    go_on = threading.Event()

    def job() -> None:
        starts.append(time.monotonic())
        go_on.wait(30)

    for broker in (first, second):
        dramatiq.actor(job, broker=broker, queue_name="work", actor_name="job")
    with run_worker(broker=first, threads=1):
        id_ = first.get_actor("job").send().message_id
        wait_for(lambda: starts)
        with run_worker(broker=second, threads=1):
            wait_for(lambda: len(starts) == 2)
            go_on.set()
            wait_for(lambda: first.switchyard.records.read(id_).state == "succeeded")

    assert starts[1] - starts[0] > TIMEOUT_S
