"""Stock Dramatiq's broker for RabbitMQ: with its defaults, or with the queues and the confirms that Switchyard has."""

import os
from typing import Any

from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.peers.on_dramatiq import OnDramatiq


class QuorumBroker(RabbitmqBroker):
    """Stock broker with quorum queues, which it has no option for."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


def _broker() -> RabbitmqBroker:
    url = os.environ["BENCH_RABBITMQ_URL"]
    return QuorumBroker(url=url, confirm_delivery=True) if os.environ.get("BENCH_QUORUM") else RabbitmqBroker(url=url)


adapter = OnDramatiq(_broker(), "dramatiq_rabbitmq")
