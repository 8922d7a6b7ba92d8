"""Yards on RabbitMQ: their brokers, and the settings that name their server."""

from __future__ import annotations

from typing import Any

from switchyard.addons.rabbitmq.broker import on_rabbitmq
from switchyard.wiring import build_yard


def build_rabbit_yard(*arguments: Any, **options: Any) -> Any:
    """Return the broker of a yard whose messages are on RabbitMQ, see :func:`switchyard.wiring.build_yard`."""
    return build_yard(*arguments, place=on_rabbitmq, **options)


def settings_of(url: str, *, queue_type: str = "quorum", consumer_timeout_s: int = 1_800) -> dict[str, Any]:
    """Return the library's settings that name such a server."""
    return {"place_url": url, "place_options": {"queue_type": queue_type, "consumer_timeout_s": consumer_timeout_s}}
