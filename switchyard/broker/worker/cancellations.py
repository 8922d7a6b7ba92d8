"""Poll, while messages are in flight, for requests to cancel them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from switchyard.broker.held_message import HeldMessage

POLL_CANCELLATIONS_S = 0.25


class CancellationPoll:
    """Marks and reports messages in flight whose cancellation was requested: one command a queue, 4 times a second.

    The first poll is due a quarter of a second after a message went in flight where none was: one that was requested
    before is found at its start. A worker with few messages thus reads nothing while each begins.
    """

    def __init__(self, report: Callable[[HeldMessage], None]) -> None:
        self._report = report
        self._due_s: float | None = None  # None while nothing is in flight
        self._reading = threading.Lock()

    def run(self, in_flight: Mapping[str, HeldMessage]) -> None:
        """Read, if it is due. While one thread reads, others return at once."""
        due_s, now_s = self._due_s, time.monotonic()
        if not in_flight:
            self._due_s = None
            return
        if due_s is None:
            self._due_s = now_s + POLL_CANCELLATIONS_S
            return
        if now_s < due_s or not self._reading.acquire(blocking=False):
            return
        try:
            self._due_s = now_s + POLL_CANCELLATIONS_S
            self._read(list(in_flight.values()))
        finally:
            self._reading.release()

    def _read(self, in_flight: list[HeldMessage]) -> None:
        by_queue: dict[str, list[HeldMessage]] = {}
        for held in in_flight:
            by_queue.setdefault(held.family.keys.queue, []).append(held)
        for messages in by_queue.values():
            requested = messages[0].family.cancel_requested([held.message_id for held in messages])
            for held in messages:
                if held.message_id in requested and not held.cancel_requested:
                    held.cancel_requested = True
                    self._report(held)
