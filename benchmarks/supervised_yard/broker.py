"""The broker with all middleware, as :mod:`benchmarks.peers.switchyard` builds it."""

import logging
import os
from typing import Any

from django.conf import settings

from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.middleware import logs
from switchyard.wiring import build_yard


def build_broker(middleware: list[Any] | None = None) -> RedisBroker:
    """Return the broker of ``settings.SWITCHYARD.topology``."""
    logs.configure("json", level=logging.INFO if "BENCH_LOGS" in os.environ else logging.WARNING)
    return build_yard(settings.SWITCHYARD.topology, connect(settings.SWITCHYARD.broker_url), Keys("bench"))
