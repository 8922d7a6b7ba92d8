"""The budget of a worker: how many messages it may hold, shared by the consumers of all its lanes."""

from __future__ import annotations

import threading
import time
from collections import deque

# A fetch for one message costs as much as one for many; so with work in stock it may wait for more room, so long.
WORTH_WAITING_S = 0.002


class Budget:
    """Room for messages. Consumers that wait for it get their turns in order, and a fair part.

    Args:
        limit: Messages that may be held at once, running ones included.
        slots: Messages that run at once. With a limit above that, some wait in stock beside the running ones.
    """

    def __init__(self, limit: int, slots: int) -> None:
        self.limit = limit
        self.consumers = 0
        self._worth = max(1, (limit - slots) // 2)
        self._free = limit
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition(threading.Lock())

    def take(self, who: object, *, timeout_s: float) -> int:
        """Return how many messages ``who`` may fetch: 0 when there is no room in time."""
        give_up = time.monotonic() + timeout_s
        hurry: float | None = None
        with self._changed:
            self._waiting.append(who)
            try:
                while True:
                    now = time.monotonic()
                    first = self._free > 0 and self._waiting[0] is who
                    if first and hurry is None:
                        hurry = now + WORTH_WAITING_S
                    if first and hurry is not None and (self._free >= self._worth or now >= hurry):
                        share = max(1, self._free // len(self._waiting))
                        self._free -= share
                        return share
                    if now >= give_up:
                        return 0
                    self._changed.wait((hurry if first and hurry is not None else give_up) - now)
            finally:
                self._waiting.remove(who)
                if self._waiting and self._free:
                    self._changed.notify_all()

    def give(self, count: int) -> None:
        """Take room back."""
        if count == 0:
            return
        with self._changed:
            had = self._free
            self._free += count
            if self._waiting and (had == 0 or self._free >= self._worth):
                self._changed.notify_all()
