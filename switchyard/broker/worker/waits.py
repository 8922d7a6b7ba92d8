"""Waits for the end of a worker's messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from dramatiq.errors import QueueJoinTimeout

# Time to send the last acknowledgements of a worker that ends.
SETTLE_S: Final = 2.0


class Settles(Protocol):
    @property
    def settled(self) -> bool:
        """Whether nothing is left to acknowledge or to give back."""


def join(lane: str, works: Callable[[], bool], *, timeout: int | None, interval: int) -> None:
    """Wait until a lane has no work, polled every ``interval`` ms; ``QueueJoinTimeout`` after ``timeout`` ms."""
    give_up_s = None if timeout is None else time.monotonic() + timeout / 1000
    while works():
        if give_up_s is not None and time.monotonic() >= give_up_s:
            raise QueueJoinTimeout(lane)
        time.sleep(interval / 1000)


def settle(consumers: Sequence[Settles]) -> None:
    """Wait until the threads of consumers have sent their last acknowledgements."""
    give_up_s = time.monotonic() + SETTLE_S
    while not all(consumer.settled for consumer in consumers) and time.monotonic() < give_up_s:
        time.sleep(0.01)
