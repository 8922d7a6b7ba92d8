"""The project's broker."""

from typing import Any

from django.conf import settings

from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.middleware import logs
from switchyard.wiring import build_yard


def build_broker(middleware: list[Any] | None = None) -> RedisBroker:
    logs.configure(settings.SWITCHYARD.log_format, release=settings.SWITCHYARD.release)
    client = connect(settings.SWITCHYARD.broker_url)
    return build_yard(settings.SWITCHYARD.topology, client, Keys())
