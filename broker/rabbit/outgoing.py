"""Outgoing answers of a consumer: any thread notes them, the one that uses the connection sends them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final, NamedTuple

from broker.rabbit.publication import Publication
from broker.worker.ack_barrier import AckBarrier

# So many acknowledgements, and more, wait for the background's flush of the records, while there is other work.
MANY: Final = 16


class _Ack(NamedTuple):
    """Delivery tag of a finished message, and the flush that must have ended before it is acknowledged."""

    flush: int
    tag: int


class Outgoing:
    """Acknowledgements, returns and rejections of a channel, and what is not acknowledged on it.

    Args:
        barrier: Flushed before messages are acknowledged.
        window: Unacknowledged messages after which the server delivers no more. It has processed all acknowledgements
            but the last so many.
    """

    def __init__(self, channel: Any, barrier: AckBarrier | None, *, window: int) -> None:
        self.unacked: dict[int, Publication] = {}
        self._acknowledged: deque[Publication] = deque(maxlen=window)
        self._channel, self._barrier = channel, barrier
        self._acks: deque[_Ack] = deque()
        self._returns: deque[int] = deque()
        self._rejected: deque[int] = deque()
        self._sending = threading.Lock()

    @property
    def pending(self) -> bool:
        """Whether there is anything to send, or some of it is being sent."""
        # In this order: what is taken from the lists is taken while the lock is held.
        return bool(self._acks or self._returns or self._rejected) or self._sending.locked()

    def ack(self, tag: int) -> None:
        """Note a message that has ended; it is acknowledged after the next flush of the records."""
        self._acks.append(_Ack(self._barrier.begun + 1 if self._barrier else 0, tag))

    def drop(self, tag: int) -> None:
        """Note a message of which no record waits to be written."""
        self._acks.append(_Ack(0, tag))

    def give_back(self, tag: int) -> None:
        """Note a message that goes back to its queue."""
        self._returns.append(tag)

    def reject(self, tag: int) -> None:
        """Note a message for the queue of rejected ones."""
        self._rejected.append(tag)

    def ended(self, *, processed: bool) -> list[Publication]:
        """Return the messages that have ended and may be unacknowledged.

        Args:
            processed: The server has processed all that was sent.
        """
        sent = () if processed else self._acknowledged
        waiting = [self.unacked[ack.tag] for ack in list(self._acks) if ack.tag in self.unacked]
        return [publication for publication in (*sent, *waiting) if publication.id]

    def send(self, *, busy: bool = False) -> None:
        """Send what was noted.

        Args:
            busy: There are messages to hand out: ``MANY`` acknowledgements or more wait for the background's flush.

        Raises:
            BrokerUnavailable: the records could not be written; acknowledgements are kept.
        """
        with self._sending:
            while self._returns:
                self._nack(self._returns.popleft(), requeue=True)
            while self._rejected:
                self._nack(self._rejected.popleft(), requeue=False)
            if self._acks:
                self._acknowledge(busy=busy)

    def _nack(self, tag: int, *, requeue: bool) -> None:
        if tag in self.unacked:
            self._channel.basic_nack(tag, requeue=requeue)
            del self.unacked[tag]

    def _acknowledge(self, *, busy: bool) -> None:
        """Acknowledge all messages whose records are written, with one frame where no older one is unfinished."""
        barrier = self._barrier
        if barrier is not None and not (busy and barrier.in_background and len(self._acks) >= MANY):
            barrier.flush(with_starts=False)
        written = barrier.written if barrier is not None else 0
        done: dict[int, None] = {}
        while self._acks and self._acks[0].flush <= written:
            done[self._acks.popleft().tag] = None
        # Before the server is told: a connection that breaks meanwhile leaves it unknown whether the server heard.
        self._acknowledged.extend(self.unacked[tag] for tag in done if tag in self.unacked)
        oldest = 0
        for tag in self.unacked:
            if tag not in done:
                break
            oldest = tag
        if oldest:
            self._channel.basic_ack(oldest, multiple=True)
        for tag in done:
            if tag > oldest and tag in self.unacked:
                self._channel.basic_ack(tag)
            self.unacked.pop(tag, None)
