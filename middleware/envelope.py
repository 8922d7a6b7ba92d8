"""Envelope: the times at which a message was sent and is due, written into its options for metrics and records."""

from __future__ import annotations

from typing import Any, Final

from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.clock import CLOCK, now_ms

# Time from making a message to sending it that its times do not tell apart.
AT_ONCE_MS: Final = 1


class Envelope(Middleware):
    """Middleware that sets ``enqueued_at`` (once) and ``due_at`` (at each delay) on messages, ms since the epoch.

    Listed last: the middleware before it recognise a first send by the missing ``enqueued_at``.
    """

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        now = now_ms()
        if CLOCK.wrong and "enqueued_at" not in message.options:
            # Dramatiq stamps with this host's clock; ages are reckoned by hosts whose clocks are right.
            object.__setattr__(message, "message_timestamp", CLOCK.corrected(message.message_timestamp))
        made_at = message.message_timestamp
        # Most messages are sent as soon as they are made: their body says the time once, see
        # switchyard/broker/queue/codec.py.
        message.options.setdefault("enqueued_at", made_at if 0 <= now - made_at <= AT_ONCE_MS else now)
        if delay is not None:
            message.options["due_at"] = now + delay


def ready_since(message: Any) -> int:
    """Return the time from which a message could start, in ms since the epoch."""
    options = message.options
    return int(options.get("due_at") or options.get("enqueued_at") or message.message_timestamp)
