"""Common part of the adapters of Dramatiq brokers: the actor, the queues, and the ways to send."""

import os
import time
from typing import Any

import dramatiq
from dramatiq.broker import Broker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.records import run

LANES = tuple(os.environ.get("BENCH_LANES", "bench").split())


class OnDramatiq:
    """An adapter around a broker.

    Args:
        name: Module of the adapter, for its workers.
    """

    def __init__(self, broker: Broker, name: str) -> None:
        self.broker = broker
        self._name = name
        options = {}
        if os.environ.get("BENCH_RESULTS"):
            broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_URL"])))
            options = {"store_results": True}
        self.work = dramatiq.actor(run, actor_name="work", queue_name=LANES[0], broker=broker, **options)
        for lane in LANES:
            broker.declare_queue(lane)

    def enqueue(self, task: dict[str, Any], *, queue: str = LANES[0]) -> None:
        """Enqueue one."""
        self.broker.enqueue(self._message(task, queue))

    def enqueue_many(self, tasks: list[dict[str, Any]], *, queue: str = LANES[0], delay_ms: int | None = None) -> None:
        """Enqueue many in one call, or one by one where the broker has no such call."""
        messages = [self._message(task, queue) for task in tasks]
        if hasattr(self.broker, "enqueue_many"):
            self.broker.enqueue_many(messages, delay=delay_ms)
            return
        for message in messages:
            self.broker.enqueue(message, delay=delay_ms)

    def turn_over(self, count: int) -> float:
        """Fetch and acknowledge ``count`` messages after a first one, without any worker; return the seconds they took.

        The first one has a consumer find out what there is.
        """
        consumer = self.broker.consume(LANES[0], prefetch=16, timeout=1_000)
        started_s, done = time.perf_counter(), -1
        while done < count:
            message = next(consumer)
            if message is not None:
                consumer.ack(message)
                done += 1
                if done == 0:
                    started_s = time.perf_counter()
        took_s = time.perf_counter() - started_s
        consumer.close()
        return took_s

    def group(self, tasks: list[dict[str, Any]]) -> None:
        """Run a group and wait for the result of each."""
        running = dramatiq.group([self.work.message(task) for task in tasks], broker=self.broker).run()
        running.wait(timeout=300_000)

    def worker_command(self, slots: int) -> list[str]:
        """Start Dramatiq's own worker with so many threads, or greenlets."""
        return ["-m", "benchmarks.peers.dramatiq_worker", self._name, str(slots)]

    def _message(self, task: dict[str, Any], queue: str) -> dramatiq.Message[Any]:
        message = self.work.message(task)
        return message if queue == message.queue_name else message.copy(queue_name=queue)
