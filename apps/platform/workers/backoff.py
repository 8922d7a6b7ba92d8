"""When a process that died is started again: at once, or later and later if it dies right away every time."""

from __future__ import annotations

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 30.0
HEALTHY_AFTER_S = 10.0


class RestartDelay:
    """Delays between restarts of one process, in seconds."""

    def __init__(self) -> None:
        self._early_deaths = 0

    def after(self, lived_s: float) -> float:
        """Return how long to wait before the next start of a process that lived so long.

        None after 10 s of life; else 0.1 s, doubled with each early death in a row, up to 30 s.
        """
        if lived_s >= HEALTHY_AFTER_S:
            self._early_deaths = 0
            return 0.0
        delay = min(FIRST_DELAY_S * 2.0**self._early_deaths, LONGEST_DELAY_S)
        self._early_deaths = min(self._early_deaths + 1, 16)
        return delay
