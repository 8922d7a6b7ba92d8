"""Deliveries that are no message, on their way to the quarantine."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from dramatiq.common import q_name
from dramatiq.message import Message

from switchyard.addons.rabbitmq.outgoing import Outgoing
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.stores.quarantine import Quarantine

if TYPE_CHECKING:
    from switchyard.addons.rabbitmq.broker import RabbitBroker

logger = logging.getLogger("switchyard.broker")


class _Delivery(NamedTuple):
    """A delivery that is no message; ``message`` where middleware refused one."""

    tag: int
    id: str
    body: bytes
    error: Exception
    message: Message[Any] | None


class UnreadableDeliveries:
    """Deliveries of a consumer that are no message. They stay unacknowledged until they are in the quarantine.

    Attributes:
        found: Those that are not in the quarantine yet.
    """

    def __init__(self, broker: RabbitBroker, family: QueueOperations, lane: str, outgoing: Outgoing) -> None:
        self._broker, self._family, self._lane, self._outgoing = broker, family, lane, outgoing
        self.found: deque[_Delivery] = deque()

    def add(self, tag: int, given_id: str, body: bytes, error: Exception, message: Message[Any] | None) -> None:
        """Keep a delivery for :meth:`set_aside`."""
        id_ = codec.usable_id(given_id.encode()) or f"unreadable-{time.time_ns()}"
        self.found.append(_Delivery(tag, id_, body, error, message))

    def set_aside(self) -> None:
        """Put the deliveries into the quarantine.

        Raises:
            BrokerUnavailable: the server of the quarantine did not answer; the rest is kept.
        """
        while self.found:
            tag, id_, body, error, message = self.found[0]
            entry = Quarantine.entry(q_name(self._lane), body, str(error), message_id=id_)
            self._broker.unreadable.add(self._family.keys.queue, id_, entry, body)
            self.found.popleft()
            logger.error("unreadable message of %d bytes in %s set aside: %s", len(body), self._lane, error)
            if message is not None:
                self._broker.emit_after("quarantine_message", message, error)
            self._outgoing.drop(tag)
