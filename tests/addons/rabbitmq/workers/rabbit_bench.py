"""The small yard on a real RabbitMQ server, from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from switchyard.addons.rabbitmq.broker import RabbitBroker
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from tests.integration.workers.bench.yard import YARD
from tests.integration.workers.conftest import Bench


class RabbitBench(Bench):
    """A bench whose messages are on RabbitMQ, and whose records are on Valkey.

    Args:
        url: Of Valkey.
    """

    settings = "tests.addons.rabbitmq.workers"

    def __init__(self, url: str, folder: Path, rabbitmq_url: str) -> None:
        super().__init__(url, folder)
        self.environment |= {"SWITCHYARD_BROKER_URL": rabbitmq_url, "SWITCHYARD_REDIS_URL": url}
        self.broker: Any = RabbitBroker(rabbitmq_url, RedisCalls(self.client), Keys())
        for lane in [*YARD.lanes, *(queue.alone_lane for queue in YARD.queues)]:
            self.broker.declare_queue(lane)
            self.broker.flush(lane)

    def waiting(self, queue: str) -> int:
        return self.broker.lane_stats(queue).waiting
