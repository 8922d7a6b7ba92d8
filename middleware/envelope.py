"""Envelope: when a message was sent and when it is due, written on the message for everyone who measures."""

from __future__ import annotations

from typing import Any

from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from broker.clock import now_ms


class Envelope(Middleware):
    """Stamp each message with ``enqueued_at`` (once) and ``due_at`` (each time it is delayed), ms since the epoch.

    Listed last: what comes before it tells a first send by the missing stamp.
    """

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Write the stamps."""
        now = now_ms()
        message.options.setdefault("enqueued_at", now)
        if delay is not None:
            message.options["due_at"] = now + delay


def ready_since(message: Any) -> int:
    """Return since when a message could have started, ms since the epoch."""
    options = message.options
    return int(options.get("due_at") or options.get("enqueued_at") or message.message_timestamp)
