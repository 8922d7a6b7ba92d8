"""Tells children that hang from those that are busy."""

from __future__ import annotations

import time
from collections.abc import Mapping

from apps.platform.workers.shared.child_table import ChildRow

# A child beats twice a second; one that starts, and loads everything first, not before it is up.
HUNG_S, BOOT_S = 10.0, 60.0


class Heartbeats:
    """When each child last gave a sign of life, as far as whoever looks saw it."""

    def __init__(self) -> None:
        self._looked_s = time.monotonic()
        self._seen: dict[int, tuple[int, float]] = {}

    def forget(self, place: int) -> None:
        """Forget the child of a place: another one starts there."""
        self._seen.pop(place, None)

    def silent(self, rows: Mapping[int, ChildRow]) -> list[tuple[int, float]]:
        """Return place and seconds of each child that runs nothing and has given no sign of life for too long.

        One that runs something may hold the interpreter. Once that has ended, it has as long to beat as any other.

        Args:
            rows: Place -> row, of the children that are there.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s > HUNG_S / 2:
            self._seen.clear()  # it was this process that stood still, its children may have as well
        self._looked_s = now_s
        self._seen = {place: seen for place, seen in self._seen.items() if place in rows}
        found = []
        for place, row in rows.items():
            state = row.read()
            beat_ns, since_s = self._seen.get(place, (-1, now_s))
            if beat_ns != state.beat_ns or any(ran.limit_ns for ran in row.running()):
                self._seen[place] = (state.beat_ns, now_s)
            elif now_s - since_s > (HUNG_S if state.ready else BOOT_S):
                found.append((place, now_s - since_s))
        return found
