"""Fetched messages: each becomes a held message, or goes to the quarantine when it is none."""

from __future__ import annotations

import logging

from broker.held_message import HeldMessage
from broker.queue import codec
from broker.queue.operations import QueueOperations
from broker.queue.results import Grant
from broker.stores.quarantine import Quarantine

logger = logging.getLogger("switchyard.broker")


def readable(grant: Grant, family: QueueOperations, lane_name: str) -> HeldMessage | None:
    """Return the message of a grant; move it to the quarantine and return ``None`` when it is unreadable."""
    try:
        if grant.body is None:
            raise codec.UnreadableMessage("an id without a body")
        message = codec.decode(grant.body, message_id=str(grant.lease.id, "ascii"), lane=lane_name)
    except (codec.UnreadableMessage, UnicodeDecodeError) as error:
        raw = grant.lease.id if grant.body is None else grant.body
        family.quarantine(grant.lease, Quarantine.entry(lane_name, raw, str(error)).encode())
        logger.error("unreadable message of %d bytes in %s set aside: %s", len(raw), lane_name, error)
        return None
    return HeldMessage(message, grant.lease, family, grant.crashes, grant.cancel_requested, grant.cause)
