"""Health of a pool: whether it fetches messages while some wait."""

from __future__ import annotations

import time

from switchyard.workers.supervisor.children import ChildManager

STUCK_S = 30.0


class PoolHealth:
    """Progress of a pool's children, as ``/health`` reports it."""

    def __init__(self, children: ChildManager) -> None:
        self._children = children
        self._taken, self._taken_s = -1, time.monotonic()

    def reset(self) -> None:
        """Restart the time limit for progress, because the children start again."""
        self._taken, self._taken_s = -1, time.monotonic()

    def unhealthy_reason(self) -> str:
        """Return why the pool does not work; empty when it does.

        A pool works while it fetches messages, or while none wait; running processes are not enough. While the broker
        is unavailable the pool counts as working: no message can be fetched, and no restart would help. The same holds
        while the children are quiet, because a suspect runs alone.
        """
        leases = self._children.leases
        if leases.keeper.away or self._children.quiet:
            self._taken_s = time.monotonic()
            return ""
        rows = [self._children.rows[process.index] for process in self._children.own if process.pid]
        if not any(row.working for row in rows):
            return "no child works"
        states = [row.read() for row in rows]
        taken, now_s = sum(state.taken for state in states), time.monotonic()
        if taken != self._taken or any(state.busy for state in states) or not leases.backlog.waiting:
            self._taken, self._taken_s = taken, now_s
        idle_s = now_s - self._taken_s
        return f"messages wait, and none was taken for {idle_s:.0f} s" if idle_s > STUCK_S else ""
