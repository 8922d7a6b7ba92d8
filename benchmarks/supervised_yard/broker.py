"""The broker of the whole stack, as :mod:`benchmarks.peers.switchyard` builds it."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings

from broker.clients import connect
from broker.keys import Keys
from broker.redis_broker import RedisBroker
from middleware import logs
from project.wiring import build_yard


def build_broker(middleware: list[Any] | None = None) -> RedisBroker:
    """Return the broker of ``settings.YARD``."""
    logs.configure("json", level=logging.WARNING)
    return build_yard(settings.YARD, connect(settings.SWITCHYARD.broker_url), Keys("bench"))
