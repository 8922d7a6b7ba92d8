"""A queue with a depth refuses what is new, and never what follows a job that ran."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import dramatiq
import pytest

from switchyard.broker.errors import QueueFull
from switchyard.broker.interface import facilities
from switchyard.broker.queue import limits
from switchyard.broker.queue.administration import limits_lifted
from switchyard.broker.topology import FairShare, Yard
from switchyard.jobs import services
from tests.conftest import BuildBroker
from tests.factories.yards import small_yard
from tests.waiting import wait_for


def shallow_yard(max_depth: int) -> Yard:
    """Return a yard whose queue holds so many messages."""
    yard = small_yard()
    return dataclasses.replace(yard, queues=(dataclasses.replace(yard.queues[0], max_depth=max_depth),))


def ids(messages: list[dramatiq.Message[Any]]) -> list[str]:
    return [message.message_id for message in messages]


def test_the_next_step_of_a_pipeline_and_a_retry_go_into_a_full_queue(
    yard_broker: BuildBroker, run_worker: Any
) -> None:
    broker = yard_broker(shallow_yard(1))
    started, full, done = threading.Event(), threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def first() -> int:
        if not started.is_set():
            started.set()
            full.wait(60)
            raise RuntimeError("the first time")
        return 1

    @dramatiq.actor(broker=broker, queue_name="work")
    def second(number: int) -> None:
        done.set()

    @dramatiq.actor(broker=broker, queue_name="work")
    def filler() -> None: ...

    with run_worker(broker=broker, threads=1):
        dramatiq.pipeline([first.message(), second.message()], broker=broker).run()
        assert started.wait(30)
        filler.send_with_options(delay=60_000)
        with pytest.raises(QueueFull, match="'work' holds 1 messages of at most 1"):
            filler.send()
        full.set()
        assert done.wait(30)


def test_a_job_that_a_full_queue_refused_is_not_recorded(yard_broker: BuildBroker) -> None:
    broker = yard_broker(shallow_yard(1))

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None: ...

    job.send()
    refused = job.message()
    with pytest.raises(QueueFull):
        broker.enqueue(refused)

    assert facilities(broker).records.read(refused.message_id) is None


@pytest.mark.parametrize("customer", [7, 2.5, "a/b", "Zoë", "x" * 200, "ü" * 100, None, True])
def test_a_tenant_with_as_many_waiting_as_its_share_allows_is_refused_and_no_other(
    yard_broker: BuildBroker, run_worker: Any, customer: Any
) -> None:
    share = FairShare("customer", max_depth=2)
    queue = dataclasses.replace(small_yard().queues[0], fair_by=share)
    broker = yard_broker(dataclasses.replace(small_yard(), queues=(queue,)))

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(customer: Any = None) -> None: ...

    limits.declare_fair(broker.families["work"], share, broker.actors.values())
    with pytest.raises(QueueFull, match="'work' holds 0 messages with the same customer of at most 2"):
        broker.enqueue_many([job.message(customer) for _ in range(3)])
    sent = [job.send(customer), job.send(customer=customer)]

    with pytest.raises(QueueFull, match="holds 2 messages"):
        job.send(customer)
    with limits_lifted():  # it follows a job
        sent.append(job.send(customer))
    sent += [job.send("another"), job.send_with_options(args=(customer,), delay=1)]
    with run_worker(broker=broker):
        wait_for(lambda: all(found and found.ended for found in map(facilities(broker).records.read, ids(sent))))
        job.send(customer)


def test_a_job_with_a_unique_key_is_submitted_under_the_id_of_the_unfinished_one(
    yard_broker: BuildBroker, run_worker: Any
) -> None:
    broker = yard_broker(small_yard(max_retries=0))
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", unique_key=lambda number: f"report-{number}")
    def report(number: int) -> None:
        runs.append(number)
        if number == 9:
            raise RuntimeError("no")

    first = services.submit(report, kwargs={"number": 1})
    assert services.submit(report, kwargs={"number": 1}) == first
    assert services.submit(report, kwargs={"number": 2}) != first
    dead = services.submit(report, kwargs={"number": 9})
    with run_worker(broker=broker):
        wait_for(lambda: facilities(broker).transport.stats("work").dead == 1)
        broker.join("work", timeout=60_000)
        assert services.submit(report, kwargs={"number": 1}) != first, "free again after its end"
        assert services.submit(report, kwargs={"number": 9}) != dead, "free again after its death"
        broker.join("work", timeout=60_000)

    assert sorted(runs) == [1, 1, 2, 9, 9]
