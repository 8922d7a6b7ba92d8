"""When a process that died is started again: at once, or later and later if it never did anything before it died."""

from __future__ import annotations

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 30.0


class RestartDelay:
    """Delays between restarts of one process, in seconds."""

    def __init__(self) -> None:
        self._idle_deaths = 0

    def after(self, *, worked: bool) -> float:
        """Return how long to wait before the next start of a process that ended.

        None when it had worked; else 0.1 s, doubled with each such death in a row, up to 30 s.
        """
        if worked:
            self._idle_deaths = 0
            return 0.0
        delay = min(FIRST_DELAY_S * 2.0**self._idle_deaths, LONGEST_DELAY_S)
        self._idle_deaths = min(self._idle_deaths + 1, 16)
        return delay
