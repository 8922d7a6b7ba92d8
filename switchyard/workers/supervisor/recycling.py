"""Replacement of children by age and by memory, and the kill of one over the memory limit."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Mapping

from switchyard.workers.shared.fork import resident_bytes
from switchyard.workers.supervisor.children import ChildManager
from switchyard.workers.supervisor.processes import ExitCause, Process, send

# The next measurement is due before a child could reach its limit at a growth of 2 GB/s, about the write rate of one
# processor. A measurement takes 20 microseconds.
MEASURE_EVERY_S, MEASURE_AT_MOST_EVERY_S = 0.1, 0.01
GROWTH_BYTES_S = 2e9
POLL_SUCCESSOR_S = 0.02

logger = logging.getLogger("switchyard.workers")


class Recycling:
    """Replacement of children that ran enough tasks or hold too much memory, one at a time, successor first."""

    def __init__(self, children: ChildManager) -> None:
        self._children = children
        self._measure_at_s = 0.0
        self._replacement: tuple[Process, Process] | None = None  # the old one and its successor

    def enforce(self) -> float:
        """Replace and kill the children that are due; return the seconds until the next call is due."""
        if self._children.stopping or self._children.paused:
            self._replacement = None  # a pause ends both, and fills positions anew
            return math.inf
        resident = self._measure()
        if self._children.quiet:  # a successor would not work before the quiet period ends
            return max(self._measure_at_s - time.monotonic(), 0.0) if self._measure_at_s else math.inf
        if self._replacement is not None and not self._replacement[1].wanted:
            self._replacement = None  # a pause ended both
        if self._replacement is None:
            self._begin_replacement(resident)
        elif self._children.rows[self._replacement[1].index].working:
            old, _ = self._replacement
            self._replacement = None
            self._children.retire(old)
            self._children.process_set.end(old)
        if self._replacement is not None:
            return POLL_SUCCESSOR_S
        return max(self._measure_at_s - time.monotonic(), 0.0) if self._measure_at_s else math.inf

    def _measure(self) -> dict[int, int]:
        """Kill children over the memory limit; return resident bytes by index, none until a measurement is due."""
        pool = self._children.pool
        if not (pool.recycle_above_bytes or pool.memory_limit_bytes) or time.monotonic() < self._measure_at_s:
            return {}
        resident = {process.index: resident_bytes(process.pid) for process in self._children.running}
        if pool.memory_limit_bytes:
            self._kill_over_memory(resident, pool.memory_limit_bytes)
        soon_s = ((pool.memory_limit_bytes or math.inf) - max(resident.values(), default=0)) / GROWTH_BYTES_S
        self._measure_at_s = time.monotonic() + max(min(soon_s, MEASURE_EVERY_S), MEASURE_AT_MOST_EVERY_S)
        return resident

    def _kill_over_memory(self, resident: Mapping[int, int], limit_bytes: int) -> None:
        for process in self._children.running:
            size_bytes = resident.get(process.index, 0)
            exit_cause = self._children.exit_causes.get(process.index)
            if size_bytes > limit_bytes and not (exit_cause and exit_cause.killed):
                fact = f"takes {size_bytes / 1e6:.0f} MB, over its {limit_bytes / 1e6:.0f} MB"
                logger.error("pool %s: child %d %s; killed", self._children.pool.name, process.index, fact)
                self._children.kill(process, ExitCause("memory", crash=f"killed for memory: its worker {fact}"))

    def _begin_replacement(self, resident: Mapping[int, int]) -> None:
        children, pool = self._children, self._children.pool
        free = children.free_process()
        for process in children.own:
            row = children.rows[process.index]
            if not process.pid or not process.wanted or process.index in children.exit_causes:
                continue
            state = row.read()
            if free is None:  # one after the other, except children that are full and idle
                if row.full and not state.busy:
                    children.retire(process)
                    send(process, signal.SIGTERM)
                continue
            aged = pool.recycle_after and state.done >= pool.recycle_after
            grown = pool.recycle_above_bytes and resident.get(process.index, 0) > pool.recycle_above_bytes
            if row.full or aged or grown:
                self._replacement = (process, free)
                children.process_set.fill(free)
                return
