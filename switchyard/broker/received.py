"""Fetched messages: each becomes a held message, is scheduled for its ``eta``, or goes to the quarantine."""

from __future__ import annotations

import logging
import uuid
from typing import Any

from dramatiq.message import Message
from dramatiq.middleware import MiddlewareError

from switchyard.broker.consuming_broker import ConsumingBroker
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.queue.results import Grant
from switchyard.broker.stores.quarantine import Quarantine

logger = logging.getLogger("switchyard.broker")


def receive(grant: Grant, family: QueueOperations, lane_name: str, broker: ConsumingBroker) -> HeldMessage | None:
    """Return the message of a grant, or ``None`` when it was scheduled or quarantined.

    Middleware refuses an option in ``before_receive_message``, by raising a ``MiddlewareError``. Nothing that is
    returned has an ``eta``: Dramatiq would keep the message in memory, and lose it when it cannot be enqueued again.
    """
    message: Message[Any] | None = None
    try:
        if grant.body is None:
            raise codec.UnreadableMessage("an id without a body")
        message = codec.decode(grant.body, message_id=str(grant.lease.id, "ascii"), lane=lane_name)
        if not message.options.keys() <= codec.VALIDATED:
            broker.emit_before("receive_message", message)
    except (codec.UnreadableMessage, UnicodeDecodeError, MiddlewareError) as error:
        if not _quarantined(grant, family, lane_name, error):
            broker.report_stale(family, [grant.lease])
        elif message is not None:
            broker.emit_after("quarantine_message", message, error)
        return None
    if "eta" in message.options and _scheduled(message, grant, family, broker):
        return None
    known = grant.crashes, grant.cancel_requested, grant.cause, grant.lapses, grant.body
    return HeldMessage(message, grant.lease, family, *known)


def _scheduled(message: Message[Any], grant: Grant, family: QueueOperations, broker: ConsumingBroker) -> bool:
    """Make a due time of a message's ``eta``; return ``False`` when it is due, and still held."""
    eta = message.options.pop("eta")
    if eta is None:
        return False
    message.options.update(due_at=int(eta), deferred_by="eta")
    delay_ms = family.schedule(grant.lease, body=codec.encode(message, grown=True), due_at_ms=int(eta))
    if delay_ms is None:
        broker.report_stale(family, [grant.lease])
    elif delay_ms:
        broker.emit_after("enqueue", message, delay_ms)
    return delay_ms != 0


def _quarantined(grant: Grant, family: QueueOperations, lane_name: str, error: Exception) -> bool:
    """Move an unreadable message to the quarantine; return ``False`` when its lease is lost."""
    raw = grant.lease.id if grant.body is None else grant.body
    id_ = codec.usable_id(grant.lease.id) or uuid.uuid4().hex  # requeued, it gets this one
    entry = Quarantine.entry(lane_name, raw, str(error), message_id=id_)
    if not family.quarantine(grant.lease, entry.encode(), whole=grant.body, kept_id=id_):
        return False
    logger.error("unreadable message of %d bytes in %s set aside: %s", len(raw), lane_name, error)
    return True
