"""A server that ends a consumer and leaves its connection: work goes on by another one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import dramatiq
import pika
import pytest

from tests.waiting import wait_for


def delete_its_queue(broker: Any, lane: str) -> None:
    """Delete a queue as a person does, over another connection."""
    with pika.BlockingConnection(broker.parameters) as connection:
        connection.channel().queue_delete(broker.server_queues.name(lane))
    broker.publishers.close()


def close_its_channel(broker: Any, lane: str) -> None:
    for each in broker._consumers:
        unknown_tag = partial(each._channel._impl.basic_ack, 10_000)
        each._connection.add_callback_threadsafe(unknown_tag)


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
@pytest.mark.parametrize("end", [delete_its_queue, close_its_channel])
def test_work_goes_on(
    end: Callable[..., None], queue_type: str, rabbit_yard: Any, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)
    broker, ran = rabbit_yard(keys=queue_type, queue_type=queue_type), set[int]()
    job = dramatiq.actor(lambda n: ran.add(n), broker=broker, queue_name="work", actor_name="job")
    with run_worker(broker=broker):
        job.send(1)
        wait_for(lambda: 1 in ran and not broker.in_flight)

        end(broker, "work")
        job.send(2)

        wait_for(lambda: 2 in ran, timeout_s=30)
