"""Messages that a worker process holds and has not started, noted so that the end of its pool does not blame them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from switchyard.addons.rabbitmq.held import RabbitMessage
from switchyard.addons.rabbitmq.publication import Publication
from switchyard.addons.rabbitmq.redeliveries import Redeliveries

# A message that waits for a thread for longer is noted. Shorter, and each of a busy worker would cost a round trip.
WAITED_S: Final = 1.0


class WaitingMessages:
    """Notes of the messages of a consumer that have waited for a thread for over a second.

    A message that is noted has not started: its note is removed before it does, which costs those that waited for so
    long one round trip, and no other message any. ``delivering`` is held while a message's delivery changes, or it
    starts.
    """

    def __init__(self, redeliveries: Redeliveries, delivering: threading.RLock) -> None:
        self._redeliveries, self._delivering = redeliveries, delivering
        self._noting = threading.Lock()
        self._noted: set[int] = set()

    def note(self, in_flight: Mapping[str, RabbitMessage], source: object) -> None:
        """Note those that have waited for long. For the consumer's thread."""
        with self._noting:  # until they are noted: one that starts meanwhile waits, and removes its note
            before_s = time.monotonic() - WAITED_S
            with self._delivering:
                held = [message for message in list(in_flight.values()) if message.source is source]
                waiting = [message for message in held if not message.runs_in and message.received_s < before_s]
                new = set(map(_mark_of, waiting)) - self._noted
                if self._noted:  # one that is about to remove its note is held as well
                    self._noted.intersection_update(map(_mark_of, held))
                self._noted |= new
            self._redeliveries.note_returns_or_log(list(new))

    def begin(self, message: RabbitMessage) -> None:
        """Remove the note of a message that starts, if it has one."""
        if self._noted and (mark := _mark_of(message)) in self._noted:
            with self._noting:
                if mark in self._noted:
                    self._noted.discard(mark)
                    self._redeliveries.forget_return_or_log(mark)

    def leave(self) -> None:
        """Leave the notes of a connection that ended: they are about the next deliveries of these messages."""
        with self._noting:
            self._noted.clear()


def start(message: Any, delivering: threading.RLock) -> None:
    """Note in a message that this thread runs it: it is no longer only prefetched."""
    with delivering:
        message.runs_in = threading.get_ident()
    message.source.waiting.begin(message)


def _mark_of(message: RabbitMessage) -> int:
    return Publication(message.message_id, message.lease.token).mark
