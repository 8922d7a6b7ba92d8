"""Quiet periods of a pool: lapse suspects run alone, the other children fetch and start nothing."""

from __future__ import annotations

import logging
import math
import time
from typing import Literal

from switchyard.workers.supervisor.children import ChildManager

PERIOD_S = 5.0  # for starts of suspects; the last of them may take longer
SETTLED_S = 0.25  # until the row of a quiet child shows for certain what it was just starting
IDLE_S = 1.0  # after which the period ends, if its child has run nothing for so long
START_S = 30.0  # for the start of that child
# Time that a period first waits for running tasks while other work waits; each vain wait doubles it.
PATIENCE_S = 15.0
POLL_S = 0.05

Step = Literal["closed", "emptying", "running", "ending"]

logger = logging.getLogger("switchyard.workers")


class QuietPeriods:
    """Periods of a pool in which nothing runs beside a lapse suspect, so that an end of the container is its doing.

    A period has four steps, each entered when the one before is complete::

        closed      until suspects wait, and for as long as the last period took, if other work waited
        emptying    the children are quiet and end what they run; the exclusive child starts, quiet as well;
                    when other work waits too long for that, the period is put off, and the next waits longer
        running     the exclusive child takes one suspect after the other, for 5 s
        ending      the exclusive child ends after its suspect; then the others go on

    The exclusive child's leases say from their beginning that it runs alone, so that only its message is blamed when
    all are killed.
    """

    def __init__(self, children: ChildManager) -> None:
        self._children = children
        self._next_s = 0.0
        self._opened_s = 0.0
        self._patience_s = PATIENCE_S
        self._step: Step = "closed"
        self._step_s = self._works_s = 0.0

    def work(self) -> float:
        """Take the next step when it is due; return the seconds until the next call is due."""
        children, now_s = self._children, time.monotonic()
        if children.stopping or children.paused or children.quieted:
            if self._step != "closed":
                self._close(now_s)
            return math.inf
        if self._step == "closed":
            if now_s < self._next_s:
                return self._next_s - now_s
            if not children.ready or not children.leases.backlog.wants_quiet_period:
                return math.inf
            children.begin_quiet()
            self._opened_s = now_s
            self._enter("emptying", now_s)
            logger.info("pool %s: its children start nothing while suspects run alone", children.pool.name)
        elif self._step == "emptying":
            self._empty(now_s)
        elif self._step == "running":
            self._watch(now_s)
        elif self._gone:
            self._close(now_s)
        return POLL_S

    @property
    def _gone(self) -> bool:
        exclusive = self._children.exclusive
        return exclusive is None or not (exclusive.pid or exclusive.wanted)

    def _empty(self, now_s: float) -> None:
        children, exclusive = self._children, self._children.exclusive
        if now_s - self._opened_s > self._patience_s and children.leases.backlog.waiting:
            self._put_off(now_s)
        elif exclusive is None:
            children.start_exclusive()
        elif self._gone:  # it could not work
            self._close(now_s)
        elif (
            exclusive.pid
            and now_s - self._step_s > SETTLED_S
            and not any(children.rows[process.index].read().busy for process in children.own)
        ):
            children.rows[exclusive.index].quiet = False
            self._patience_s = PATIENCE_S
            self._enter("running", now_s)

    def _put_off(self, now_s: float) -> None:
        """End a period in which no suspect could run: a pool with a task of hours gives half of its time to them."""
        children, exclusive = self._children, self._children.exclusive
        logger.info(
            "pool %s: its tasks run for over %.0f s; suspects wait for longer", children.pool.name, self._patience_s
        )
        self._patience_s *= 2
        if exclusive is None:  # an isolated child runs still
            self._close(now_s)
        else:
            children.end_unhurried(exclusive)
            self._enter("ending", now_s)

    def _watch(self, now_s: float) -> None:
        children, exclusive = self._children, self._children.exclusive
        if exclusive is None or self._gone:
            self._close(now_s)
            return
        row = children.rows[exclusive.index]
        if row.working:
            self._works_s = self._works_s or now_s
            state = row.read()
            idle_s = 0.0 if state.busy else now_s - state.progress_ns / 1e9
            over = idle_s > IDLE_S or now_s - self._works_s > PERIOD_S
        else:
            over = now_s - self._step_s > START_S
        if over:
            children.end_unhurried(exclusive)
            self._enter("ending", now_s)

    def _enter(self, step: Step, now_s: float) -> None:
        self._step, self._step_s, self._works_s = step, now_s, 0.0

    def _close(self, now_s: float) -> None:
        children = self._children
        took_s = now_s - self._opened_s
        others_wait = children.leases.backlog.waiting
        self._next_s = now_s + (took_s if others_wait else 0.0)
        children.end_quiet()
        children.leases.backlog.forget()  # what it says of suspects is from before the period
        self._enter("closed", now_s)
        logger.info("pool %s: its children go on after %.1f s", children.pool.name, took_s)
