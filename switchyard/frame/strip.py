"""The verdict of the overview, kept for a moment: every page shows it, and no page waits for it twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from switchyard.console.broker_away import SWITCHED_OFF

if TYPE_CHECKING:
    from switchyard.operations.diagnosis import Verdict

# Of a page: one that follows another costs nothing, and the strip of an open one is read anew soon after.
PAGE_S = 5.0
# Of the strip alone, which open pages fetch.
FRESH_S = 2.0
# An older one is not shown while it is read anew.
OLD_S = 15.0


class KeptVerdict(msgspec.Struct, frozen=True):
    """A verdict with the time at which the yard was read.

    Args:
        away: Whether the broker did not answer.
        quarantined: Messages that nobody can read; ``None`` where that is not known.
    """

    verdict: Verdict
    at: datetime
    away: bool = False
    quarantined: int | None = None

    @property
    def switched_off(self) -> str:
        """Reason for which acts that need the broker are switched off; "" while it answers."""
        return SWITCHED_OFF if self.away else ""


class VerdictStrip:
    """The last verdict of this process. A page that finds it being read elsewhere shows the one before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        # With the time at which the read ended.
        self._kept: tuple[KeptVerdict, float] | None = None

    def verdict(self, fresh_s: float = FRESH_S) -> KeptVerdict:
        """Return the verdict, read anew when it is older than ``fresh_s``."""
        kept = self._fresh(fresh_s)
        if kept is not None:
            return kept
        before = self._fresh(OLD_S)
        acquired = self._lock.acquire(blocking=before is None)
        if before is not None and not acquired:
            return before
        try:
            return self._fresh(fresh_s) or self._read()
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Have the next page read the yard."""
        self._kept = None

    def _fresh(self, fresh_s: float) -> KeptVerdict | None:
        kept = self._kept
        return kept[0] if kept and self._clock() - kept[1] < fresh_s else None

    def _read(self) -> KeptVerdict:
        # Imported here: Django's check of templates imports the tags, which import this module.
        from switchyard.operations import overview

        room = overview.overview()
        found = KeptVerdict(room.verdict, room.at, away=room.away, quarantined=room.quarantined)
        self._kept = found, self._clock()
        return found


STRIP = VerdictStrip()
