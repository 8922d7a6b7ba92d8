"""Reports of a pool's state, written to the broker every 2 s, and the instructions that operators left there."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from switchyard.broker.clock import CLOCK, now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.access import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.server_clock import ServerClock
from switchyard.broker.stores.pool_reports import ChildStacks, Instruction, Notices, PoolReport, PoolReports
from switchyard.broker.topology import Pool
from switchyard.conf import switchyard_settings
from switchyard.workers.shared.child_state import ChildState
from switchyard.workers.shared.fork import resident_bytes
from switchyard.workers.supervisor.children import ChildManager

EVERY_S = 2.0
AFTER_FAILURE_S = 5.0
NOTHING_ASKED = Notices("", None)

logger = logging.getLogger("switchyard.workers")


class Reporter:
    """Writer of a pool's reports. An unavailable broker blocks each write for at most a second."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._host = socket.gethostname()
        self.started_at = now_ms()
        self._last: PoolReport | None = None
        self._away = False
        self._forgot_silent = False
        self._notices = NOTHING_ASKED
        # A client of its own: the broker's client waits and retries for longer than a supervisor may block.
        calls = calls_on(connect(switchyard_settings().broker_url, profile="quick"), budget_s=1.0)
        self._reports, self._clock = PoolReports(calls, Keys()), ServerClock(calls)

    def build(
        self, children: Iterable[tuple[int, ChildState]], *, restarts: dict[str, int], state: str, metrics_port: int
    ) -> PoolReport:
        """Return a report of the current state.

        Args:
            children: Pid and state of each running child.
        """
        reported = [_child(pid, state) for pid, state in children]
        return PoolReport(
            pool=self._pool.name,
            host=self._host,
            pid=os.getpid(),
            kind=self._pool.kind,
            slots=self._pool.total_slots,
            busy=sum(child["busy"] for child in reported),
            started_at=self.started_at,
            beat_at=now_ms(),
            state=state,
            children=reported,
            restarts=dict(restarts),
            metrics_port=metrics_port,
            release=switchyard_settings().release,
            clock_ahead_ms=CLOCK.ahead_ms,
        )

    def write(self, report: PoolReport, quieted: Instruction | None = None) -> float:
        """Write a report and return the seconds until the next one is due. An outage is logged once.

        Args:
            quieted: The instruction by which the supervisor is quieted.
        """
        self._last = report
        try:
            self._notices = self._reports.write(report, quieted)
            if not self._forgot_silent:
                self._reports.forget_silent(report.beat_at)
                self._forgot_silent = True
        except BrokerError as error:
            if not self._away:
                logger.warning("pool %s: the broker accepts no report: %s", self._pool.name, error.kind)
            self._away = True
            return AFTER_FAILURE_S
        if self._away:
            logger.info("pool %s: the broker accepts reports again", self._pool.name)
        self._away = False
        self._clock.compare()
        return EVERY_S

    def take_notices(self) -> Notices:
        """Return and clear what the last report found: a request for stacks, an instruction."""
        notices, self._notices = self._notices, NOTHING_ASKED
        return notices

    def answer_stacks(self, request: str, children: list[ChildStacks]) -> None:
        """Answer a request for the children's stacks. After a failure the next report finds the request again."""
        try:
            self._reports.answer_stacks(request, children)
        except BrokerError as error:
            logger.warning("pool %s: the broker accepts no stacks: %s", self._pool.name, error.kind)

    def remove(self) -> None:
        """Remove the report; it expires by itself if that fails."""
        if self._last is None or self._away:
            return
        try:
            self._reports.remove(self._last)
        except BrokerError as error:
            logger.warning("pool %s: report not removed, it expires by itself: %s", self._pool.name, error.kind)


def _child(pid: int, state: ChildState) -> dict[str, Any]:
    return {
        "pid": pid,
        "ready": state.works,
        "busy": state.busy,
        "done": state.done,
        "rss_bytes": resident_bytes(pid),
        "quiet": state.quiet,
    }


STUCK_S = 30.0


class PoolHealth:
    """Progress of a pool's children, as ``/health`` reports it."""

    def __init__(self, children: ChildManager) -> None:
        self._children = children
        self.reset()

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


class Instructions:
    """Obedience of one supervisor: each instruction once, and none that was meant for a process before it.

    Args:
        started_at: When the supervisor started, as it reports it, ms since the epoch.
        stop: Drains the pool.
    """

    def __init__(self, children: ChildManager, *, started_at: int, stop: Callable[[], None]) -> None:
        self.quieted: Instruction | None = None
        self._children = children
        self._started_at = started_at
        self._stop = stop
        self._obeyed = ""

    def obey(self, instruction: Instruction) -> bool:
        """Do what an operator asks; return whether that was new. The last instruction counts."""
        meant = instruction.started_at == self._started_at
        if not meant or instruction.id == self._obeyed or self._children.stopping:
            return False
        self._obeyed = instruction.id
        match instruction.verb:
            case "quiet":
                self.quieted = instruction
                self._children.set_quieted(True)
                effect = "quieted: its children fetch and start nothing, what runs ends"
            case "resume":
                self.quieted = None
                self._children.set_quieted(False)
                effect = "takes work again"
            case "stop":
                effect = "told to stop"
                self._stop()
            case other:  # of a newer release
                effect = f"does not know the instruction {other!r}; nothing is changed"
        name, by, reason = self._children.pool.name, instruction.by or "an operator", instruction.reason
        logger.warning("pool %s: %s, by %s%s", name, effect, by, f" ({reason})" if reason else "")
        return True
