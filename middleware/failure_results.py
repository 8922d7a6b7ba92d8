"""Failures for Dramatiq's own ``Results``, where a project uses it: dead letters are acknowledged, not rejected."""

from __future__ import annotations

from dramatiq.broker import Broker, MessageProxy
from dramatiq.results import Results


def store_failure(broker: Broker, message: MessageProxy) -> None:
    """Have each ``Results`` store the exception of a message, as it does for one that Dramatiq rejects."""
    stores = [entry for entry in broker.middleware if isinstance(entry, Results)]
    if not stores or message.failed:
        return
    message.failed = True
    try:
        for entry in stores:
            entry.after_nack(broker, message)
    finally:
        message.failed = False
