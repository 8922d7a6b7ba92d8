"""Messages of a consumer whose notes are read before they start: those delivered before, and those to run alone."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from switchyard.addons.rabbitmq.held import RabbitMessage
from switchyard.addons.rabbitmq.publication import Publication
from switchyard.addons.rabbitmq.redeliveries import Redeliveries, Redelivery
from switchyard.broker.errors import BrokerError

# A message that was delivered before starts this much later: the supervisor of its last worker notes how that ended.
REDELIVERED_S: Final = 0.25
# Cause of a lapse suspect that crashed no worker, as the scripts of Redis write it.
ALONE: Final = "alone"


class LaterDeliveries:
    """Queue of such messages. One thread uses it: that of the consumer."""

    def __init__(self, redeliveries: Redeliveries) -> None:
        self._redeliveries = redeliveries
        self._waiting: deque[tuple[float, RabbitMessage, bool]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, message: RabbitMessage, *, again: bool, wait: bool = True) -> None:
        """Add a message.

        Args:
            again: The server had delivered it before.
            wait: Its notes may not be written yet.
        """
        self._waiting.append((time.monotonic() + (REDELIVERED_S if wait else 0.0), message, again))

    def admit(self) -> list[tuple[RabbitMessage, bool]]:
        """Return the messages that are due, with their notes, and whether each had ended in its last delivery.

        Raises:
            BrokerError: their notes could not be read; they are due again.
        """
        due: list[tuple[RabbitMessage, bool]] = []
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, message, again = self._waiting.popleft()
            due.append((message, again))
        if not due:
            return []
        try:
            found = self._redeliveries.read([_delivery(message, again) for message, again in due])
        except BrokerError:
            for message, again in due:
                self.add(message, again=again)
            raise
        admitted = []
        for (message, _), record in zip(due, found, strict=True):
            message.crashes, message.lapses = record.crashes, record.lapses
            message.cause = record.cause or (ALONE if record.lapses is not None else "")
            admitted.append((message, message.lease.token in record.ended))
        return admitted

    def take(self) -> list[RabbitMessage]:
        """Remove and return all messages."""
        taken = [message for _, message, _ in self._waiting]
        self._waiting.clear()
        return taken


def _delivery(message: RabbitMessage, again: bool) -> Redelivery:
    return Redelivery(Publication(message.message_id, message.lease.token), message.family.keys.queue, again)
