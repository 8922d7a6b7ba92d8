"""The project's broker."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from broker.clients import connect
from broker.keys import Keys
from broker.redis_broker import RedisBroker
from middleware import logs
from project.wiring import build_yard


def build_broker(middleware: list[Any] | None = None) -> RedisBroker:
    """Return the broker of ``settings.YARD``."""
    logs.configure(settings.SWITCHYARD.log_format)
    client = connect(settings.SWITCHYARD.broker_url)
    return build_yard(settings.YARD, client, Keys())
