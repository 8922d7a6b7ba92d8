"""Quiet periods of a pool: lapse suspects run alone, the other children fetch and start nothing."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator

from switchyard.workers.supervisor.children import ChildManager
from switchyard.workers.supervisor.processes import Process

PERIOD_S = 5.0  # for starts of suspects; the last of them may take longer
SETTLED_S = 0.25  # until the row of a quiet child shows for certain what it was just starting
IDLE_S = 1.0  # after which the period ends, if its child has run nothing for so long
START_S = 30.0  # for the start of that child
# Time that a period first waits for running tasks while other work waits; each vain wait doubles it.
PATIENCE_S = 15.0
POLL_S = 0.05

logger = logging.getLogger("switchyard.workers")


class QuietPeriods:
    """Periods of a pool in which nothing runs beside a lapse suspect, so that an end of the container is its doing.

    Between two of them the pool works for as long as the last one took, if other work waited. The exclusive child's
    leases say from their beginning that it runs alone, so that only its message is blamed when all are killed.
    """

    def __init__(self, children: ChildManager) -> None:
        self._children = children
        self._next_s = self._opened_s = 0.0
        self._patience_s = PATIENCE_S
        self._period: Iterator[float] | None = None

    def work(self) -> float:
        """Take the next step when it is due; return the seconds until the next call is due."""
        children, now_s = self._children, time.monotonic()
        stopped = children.stopping or children.paused or children.quieted
        if self._period is None:
            if not stopped and now_s < self._next_s:
                return self._next_s - now_s
            if stopped or not children.ready or not children.leases.backlog.wants_quiet_period:
                return math.inf
            self._period, self._opened_s = self._steps(), now_s
        wait_s = None if stopped else next(self._period, None)
        if wait_s is None:
            self._close(now_s)
            return math.inf if stopped else POLL_S
        return wait_s

    def _steps(self) -> Iterator[float]:
        """Take the steps of one period, and yield the seconds until the next is due."""
        children = self._children
        children.begin_quiet()
        logger.info("pool %s: its children start nothing while suspects run alone", children.pool.name)
        yield POLL_S
        # The children end what they run; the exclusive child starts, quiet as well.
        while True:
            waited_s = time.monotonic() - self._opened_s
            if waited_s > self._patience_s and children.leases.backlog.waiting:
                # A pool with a task of hours gives half of its time to the suspects.
                text = "pool %s: its tasks run for over %.0f s; suspects wait for longer"
                logger.info(text, children.pool.name, self._patience_s)
                self._patience_s *= 2
                break
            if children.exclusive is None:  # or an isolated child runs still
                children.start_exclusive()
            elif (exclusive := self._exclusive) is None:  # it could not work
                return
            elif exclusive.pid and waited_s > SETTLED_S and not self._is_busy():
                self._patience_s = PATIENCE_S
                yield from self._run_suspects(exclusive)
                break
            yield POLL_S
        if (exclusive := self._exclusive) is not None:
            children.end_unhurried(exclusive)
        while self._exclusive is not None:
            yield POLL_S

    def _run_suspects(self, exclusive: Process) -> Iterator[float]:
        """Have the exclusive child take one suspect after the other, until its time is over or it is gone."""
        row, began_s, works_s = self._children.rows[exclusive.index], time.monotonic(), 0.0
        row.quiet = False
        over = False
        while not over:
            yield POLL_S
            if self._exclusive is None:
                return
            now_s = time.monotonic()
            if row.working:
                works_s = works_s or now_s
                state = row.read()
                idle_s = 0.0 if state.busy else now_s - state.progress_ns / 1e9
                over = idle_s > IDLE_S or now_s - works_s > PERIOD_S
            else:
                over = now_s - began_s > START_S

    @property
    def _exclusive(self) -> Process | None:
        """The exclusive child, unless it is gone."""
        found = self._children.exclusive
        return found if found is not None and (found.pid or found.wanted) else None

    def _is_busy(self) -> bool:
        return any(self._children.rows[process.index].read().busy for process in self._children.own)

    def _close(self, now_s: float) -> None:
        children, took_s = self._children, now_s - self._opened_s
        self._period = None
        self._next_s = now_s + (took_s if children.leases.backlog.waiting else 0.0)
        children.end_quiet()
        children.leases.backlog.forget()  # what it says of suspects is from before the period
        logger.info("pool %s: its children go on after %.1f s", children.pool.name, took_s)
