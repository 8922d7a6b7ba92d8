"""Pace of a process's reconnections to the server after a failure."""

from __future__ import annotations

import random
import time

APART_S, LONGEST_S = 0.1, 0.4


class Pace:
    """Moments at which threads reconnect after a failure: 100 ms apart, or closer, so that none waits over 400 ms."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def turn_s(self) -> float:
        """Return how many seconds the caller waits before it reconnects."""
        now_s = time.monotonic()
        # Two threads may get the same moment, which does no harm; a lock would be inherited by forks.
        self._next_s = min(max(self._next_s + APART_S, now_s), now_s + LONGEST_S)
        return self._next_s - now_s + random.uniform(0, APART_S / 4)  # noqa: S311  no secret


PACE = Pace()
