"""The verdict of the overview, kept for a moment: every page shows it, and no page waits for it twice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

from apps.platform.operations import overview
from apps.platform.operations.diagnosis import Verdict

# Of a page: one that follows another costs nothing, and the strip of an open one is read anew soon after.
PAGE_S = 5.0
# Of the strip alone, which open pages fetch.
FRESH_S = 2.0


@dataclass(frozen=True, slots=True)
class KeptVerdict:
    """A verdict with the time at which the yard was read."""

    verdict: Verdict
    at: datetime


class VerdictStrip:
    """The last verdict of this process. A page that finds it being read elsewhere shows the one before."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: KeptVerdict | None = None
        self._read_at = 0.0

    def verdict(self, fresh_s: float = FRESH_S) -> KeptVerdict:
        """Return the verdict, read anew when it is older than ``fresh_s``."""
        kept = self._fresh(fresh_s)
        if kept is not None:
            return kept
        if not self._lock.acquire(blocking=self._kept is None):
            return self._kept or self._read()
        try:
            return self._fresh(fresh_s) or self._read()
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Have the next page read the yard."""
        self._kept = None

    def _fresh(self, fresh_s: float) -> KeptVerdict | None:
        return self._kept if time.monotonic() - self._read_at < fresh_s else None

    def _read(self) -> KeptVerdict:
        room = overview.overview()
        self._kept = KeptVerdict(room.verdict, room.at)
        self._read_at = time.monotonic()
        return self._kept


STRIP = VerdictStrip()
