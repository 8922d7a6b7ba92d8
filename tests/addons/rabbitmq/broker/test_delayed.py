"""Delayed messages on RabbitMQ: none keeps another one from its time."""

from __future__ import annotations

import threading
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import Middleware, MiddlewareError

from switchyard.broker.queue.administration import DepthLimits
from tests.waiting import wait_for


class RefusesNine(Middleware):
    """Refuses a job once its delay is over."""

    def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        if message.args == (9,) and not delay:
            raise MiddlewareError("no")


def job_of(broker: Any, ran: list[int]) -> Any:
    return dramatiq.actor(lambda n: ran.append(n), broker=broker, queue_name="work", actor_name="job")


def test_a_refused_one_is_kept_and_the_next_runs(rabbit_yard: Any, run_worker: Any) -> None:
    broker, ran = rabbit_yard(), list[int]()
    job = job_of(broker, ran)
    broker.add_middleware(RefusesNine())

    with run_worker(broker=broker):
        job.send_with_options(args=(9,), delay=100)
        job.send_with_options(args=(8,), delay=200)
        wait_for(lambda: ran == [8])
        wait_for(lambda: broker.mover.delays.count(["work"]) == [1])
        wait_for(lambda: not any(consumer.outgoing.unacked for consumer in broker._consumers))


def test_a_full_queue_takes_what_is_due(rabbit_yard: Any, run_worker: Any) -> None:
    broker, ran, go_on = rabbit_yard(), list[int](), threading.Event()

    def run(number: int) -> None:
        ran.append(number)
        go_on.wait(60)

    job = dramatiq.actor(run, broker=broker, queue_name="work", actor_name="job")
    for number in range(9):
        job.send(number)
    job.send_with_options(args=(9,), delay=200)
    broker.limits = DepthLimits({"work": 3})

    with run_worker(broker=broker, threads=1):
        consumers = wait_for(lambda: len(broker._consumers) >= 4 and list(broker._consumers))
        wait_for(lambda: broker.lane_stats("work").waiting + len(broker.in_flight) == 10)
        assert broker._consumers == consumers
        go_on.set()
        wait_for(lambda: sorted(ran) == list(range(10)))


def test_what_is_due_soon_passes_what_is_due_late(
    rabbit_yard: Any, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dramatiq.worker.DELAY_QUEUE_PREFETCH", 4)
    broker, ran = rabbit_yard(), list[int]()
    job = job_of(broker, ran)
    for number in range(10):
        job.send_with_options(args=(number,), delay=600_000 + number)
    job.send_with_options(args=(99,), delay=500)

    with run_worker(broker=broker):
        wait_for(lambda: ran == [99])
        wait_for(
            lambda: broker.lane_stats("work").scheduled >= 7
        )  # kept in Redis; the server does not count what is held
