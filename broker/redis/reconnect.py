"""Pace: how a process comes back to a server that breaks its connections, all threads together."""

from __future__ import annotations

import random
import time
from typing import Final

APART_S: Final = 0.1
LONGEST_S: Final = 0.4


class Pace:
    """Turns to try again after a failure, so far apart that a storm of resets makes no storm of connections.

    With many in the queue they come closer together, because each call has to end in its time.
    """

    def __init__(self) -> None:
        self._next_s = 0.0

    def turn_s(self) -> float:
        """Return how many seconds the caller is to wait before it tries again."""
        now_s = time.monotonic()
        # Two threads may get the same turn; that is no harm, and a lock would be inherited by forks.
        self._next_s = min(max(self._next_s + APART_S, now_s), now_s + LONGEST_S)
        return self._next_s - now_s + random.uniform(0, APART_S / 4)  # noqa: S311  no secret
