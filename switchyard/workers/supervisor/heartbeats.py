"""Detection of children that hang."""

from __future__ import annotations

import time
from collections.abc import Mapping

from switchyard.workers.shared.child_table import ChildRow

# A child writes a heartbeat twice a second. A starting child loads everything before its first one.
HUNG_S, BOOT_S = 10.0, 60.0


class Heartbeats:
    """Time of each child's last heartbeat, as this process saw it."""

    def __init__(self) -> None:
        self._checked_s = time.monotonic()
        self._seen: dict[int, tuple[int, float]] = {}

    def silent(self, rows: Mapping[int, ChildRow]) -> list[tuple[int, float]]:
        """Return pid and seconds since the last heartbeat of each idle child whose heartbeat is overdue.

        A child that runs a task may hold the interpreter lock. After the task it has the full time for a heartbeat.

        Args:
            rows: Pid -> row, of the running children.
        """
        now_s = time.monotonic()
        if now_s - self._checked_s > HUNG_S / 2:
            self._seen.clear()  # this process was suspended, its children may have been as well
        self._checked_s = now_s
        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in rows}
        found = []
        for pid, row in rows.items():
            state = row.read()
            beat_ns, since_s = self._seen.get(pid, (-1, now_s))
            if beat_ns != state.beat_ns or any(ran.limit_ns for ran in row.running()):
                self._seen[pid] = (state.beat_ns, now_s)
            elif now_s - since_s > (HUNG_S if state.ready else BOOT_S):
                found.append((pid, now_s - since_s))
        return found
