"""The budget of a worker: how many messages it may hold, shared by the consumers of all its lanes."""

from __future__ import annotations

import threading
import time
from collections import deque

# A fetch for one message costs as much as one for many; so with work in stock it may wait for more room, so long.
WORTH_WAITING_S = 0.002

# The stock is for the time until the next fetch is answered, on a busy machine or a millisecond away.
STOCK_S = 0.010
# But a message may turn out to be long, and what is in stock behind it waits: so many at most for each slot.
STOCK_A_SLOT = 16


class PrefetchCredit:
    """Room for messages. Consumers that wait for it get their turns in order, and a fair part.

    The stock beside the running messages grows while they are short: with tasks of microseconds, a server a millisecond
    away could not be asked often enough otherwise.

    Args:
        limit: Messages that may be held at first, running ones included. No more than ``slots`` means no stock, ever.
        slots: Messages that run at once.
    """

    def __init__(self, limit: int, slots: int) -> None:
        self.consumers = 0
        self._least = max(limit - slots, 0)
        self._most = max(self._least, STOCK_A_SLOT * slots) if self._least else 0
        self._stock = self._least
        self._free = limit
        self._worked_off = 0
        self._since = time.monotonic()
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
                    if first and hurry is not None and (self._is_worth() or now >= hurry):
                        self._fit_stock(now)
                        share = max(1, self._free // len(self._waiting))
                        self._free -= share
                        return share
                    if now >= give_up:
                        return 0
                    self._changed.wait((hurry if first and hurry is not None else give_up) - now)
            finally:
                self._waiting.remove(who)
                if self._waiting and self._free > 0:
                    self._changed.notify_all()

    def give(self, count: int) -> None:
        """Take back room that was not used."""
        if count == 0:
            return
        with self._changed:
            had = self._free
            self._free += count
            if self._waiting and self._free > 0 and (had <= 0 or self._is_worth()):
                self._changed.notify_all()

    def work_off(self) -> None:
        """Take back the room of a message that is done."""
        self._worked_off += 1  # a lost count changes the stock by one
        self.give(1)

    def _is_worth(self) -> bool:
        return self._free >= max(1, self._stock // 2)

    def _fit_stock(self, now: float) -> None:
        elapsed_s = now - self._since
        if elapsed_s < STOCK_S:
            return
        wanted = int(self._worked_off * STOCK_S / elapsed_s)
        # What is out cannot be called back: it shrinks as far as there is room.
        change = max(min(max(wanted, self._least), self._most) - self._stock, 1 - self._free)
        self._free += change
        self._stock += change
        self._worked_off, self._since = 0, now
