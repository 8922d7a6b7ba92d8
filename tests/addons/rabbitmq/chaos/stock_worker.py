"""Stock Dramatiq's broker at ``STOCK_URL`` with the job of :mod:`tests.chaos.load`, for a worker of stock Dramatiq."""

import os
from typing import Any

from dramatiq import set_broker
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from tests.chaos.ledger import Ledger
from tests.chaos.load import declare_job


def stock_broker(url: str) -> Any:
    return RedisBroker(url=url) if url.startswith("redis") else RabbitmqBroker(url=url)


if "STOCK_URL" in os.environ:  # in the worker, which imports this
    broker = stock_broker(os.environ["STOCK_URL"])
    set_broker(broker)
    declare_job(broker, Ledger(os.environ["CHAOS_LEDGER"]))
