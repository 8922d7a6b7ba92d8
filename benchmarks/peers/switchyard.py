"""Switchyard's broker, with Dramatiq's default middleware or with all middleware of a yard."""

import logging
import os
from typing import Any

from dramatiq.broker import Broker
from dramatiq.middleware import default_middleware

from benchmarks.peers.on_dramatiq import LANES, OnDramatiq
from switchyard.broker.enqueue_many import messages
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import RETRY_SUFFIX, Pool, Queue, Yard

RABBITMQ_URL = os.environ.get("BENCH_RABBITMQ_URL", "")


def plain() -> RedisBroker:
    """Return the broker as stock Dramatiq would use it."""
    middleware = [entry() for entry in default_middleware]
    return RedisBroker(connect(os.environ["BENCH_URL"]), Keys("bench"), middleware=middleware)


def plain_on_rabbitmq() -> Any:
    """Return the broker on RabbitMQ as stock Dramatiq would use it."""
    from switchyard.addons.rabbitmq.broker import RabbitBroker

    calls = calls_on(connect(os.environ["BENCH_URL"]))
    broker = RabbitBroker(RABBITMQ_URL, calls, Keys("bench"))
    for entry in default_middleware:
        broker.add_middleware(entry())
    return broker


def whole_stack() -> Broker:
    """Return the broker as a yard uses it: metrics, records of jobs, limits, retries, logs from warnings on."""
    import django

    django.setup()
    from switchyard.middleware import logs
    from switchyard.wiring import build_yard, traces

    logs.configure("json", level=logging.WARNING)
    names = [lane for lane in LANES if not lane.endswith(RETRY_SUFFIX)]
    queues = tuple(Queue(name, objective_ms=80, soft_limit_ms=60_000, hard_limit_ms=90_000) for name in names)
    pool = Pool("bench", "threads", LANES, processes=1, slots=8)
    yard, client = Yard(queues, (pool,)), connect(os.environ["BENCH_URL"])
    if RABBITMQ_URL:
        from switchyard.addons.rabbitmq.broker import on_rabbitmq  # needs pika

        return build_yard(yard, client, Keys("bench"), place=on_rabbitmq, url=RABBITMQ_URL)
    return build_yard(yard, client, Keys("bench"), observers=traces("bench"))


class OnSwitchyard(OnDramatiq):
    """Adapter that builds bulk messages as the documentation recommends."""

    def enqueue_many(self, tasks: list[dict[str, Any]], *, queue: str = LANES[0], delay_ms: int | None = None) -> None:
        """Enqueue many at once."""
        if queue != self.work.queue_name:
            super().enqueue_many(tasks, queue=queue, delay_ms=delay_ms)
        else:
            self.broker.enqueue_many(messages(self.work, ((task,) for task in tasks)), delay=delay_ms)

    def worker_command(self, slots: int) -> list[str]:
        """Start Dramatiq's own worker, or a pool, whose slots its yard declares."""
        if os.environ.get("BENCH_SMALL"):
            return ["manage.py", "switchyard", "run"]
        if os.environ.get("BENCH_SUPERVISED"):
            return ["manage.py", "runpool", "bench"]
        return super().worker_command(slots)


def _broker() -> Broker:
    if os.environ.get("BENCH_STACK"):
        return whole_stack()
    return plain_on_rabbitmq() if RABBITMQ_URL else plain()


adapter = OnSwitchyard(_broker(), "switchyard")
