"""Keeps places filled with child processes: starts them, sees each end at once, starts it again with back-off."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from apps.platform.workers.shared.fork import peak_bytes
from apps.platform.workers.supervisor.backoff import RestartDelay

HEALTHY_AFTER_S = 10.0
HAS_PIDFD = hasattr(os, "pidfd_open")

logger = logging.getLogger("switchyard.workers")


@dataclass(slots=True)
class Process:
    """One place and the process that fills it, if any.

    Args:
        wanted: A process belongs there; without, one that is there is not followed by another.
        peak_bytes: Resident memory that the process before took at most.
    """

    number: int
    wanted: bool = True
    pid: int = 0
    pidfd: int = -1
    started_s: float = 0.0
    start_at_s: float = 0.0
    peak_bytes: int = 0
    delay: RestartDelay = field(default_factory=RestartDelay)


class ProcessSet:
    """Child processes, each watched by itself: the end of one never touches another.

    Args:
        count: Places that are filled.
        spare: Places after them that are empty until :meth:`fill`.
        start: Forks the process for a place (1 …) and returns its pid.
        ended: Told place, pid and wait status of a process that ended; says whether it had worked, so that another is
            started at once. One that never did, and lived for less than 10 s, is started later and later.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        count: int,
        *,
        spare: int = 0,
        start: Callable[[int], int],
        ended: Callable[[int, int, int], bool],
    ) -> None:
        self._selector = selector
        self._start = start
        self._ended = ended
        self.members = [Process(number, wanted=number <= count) for number in range(1, count + spare + 1)]
        self.stopping = False

    @property
    def pids(self) -> list[int]:
        """Processes that run."""
        return [member.pid for member in self.members if member.pid]

    def work(self) -> None:
        """Collect what ended and start what is due."""
        for member in self.members:
            self._collect(member)
        for member in self._missing():
            if member.start_at_s <= time.monotonic():
                self._launch(member)

    def seconds_to_next(self) -> float:
        """Return in how many seconds a start is due; infinity for none."""
        return min((member.start_at_s - time.monotonic() for member in self._missing()), default=math.inf)

    def fill(self, member: Process) -> None:
        """Have a process in a place, from now on."""
        member.wanted = True
        member.start_at_s = 0.0

    def end(self, member: Process, signum: int = signal.SIGTERM) -> None:
        """Signal the process of a place, and start none after it."""
        member.wanted = False
        send(member, signum)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Signal all processes and start none again."""
        self.stopping = True
        for member in self.members:
            send(member, signum)

    def _missing(self) -> list[Process]:
        return [member for member in self.members if member.wanted and not member.pid and not self.stopping]

    def shed(self) -> None:
        """Let go of descriptors in a forked child; the processes stay the parent's."""
        for member in self.members:
            if member.pidfd >= 0:
                os.close(member.pidfd)

    def _launch(self, member: Process) -> None:
        try:
            member.pid = self._start(member.number)
        except OSError as error:  # no memory or no process ids left: the others go on, this one is tried again
            wait = member.delay.after(worked=False)
            member.start_at_s = time.monotonic() + wait
            logger.error("a process could not be started: %s; tried again in %.1f s", error.strerror, wait)
            return
        member.started_s = time.monotonic()
        if HAS_PIDFD:
            member.pidfd = os.pidfd_open(member.pid)
            # Only wakes the loop: every turn of it collects.
            self._selector.register(member.pidfd, selectors.EVENT_READ, _nothing)

    def _collect(self, member: Process) -> None:
        if not member.pid:
            return
        pid, status, used = os.wait4(member.pid, os.WNOHANG)
        if not pid:
            return
        member.peak_bytes = peak_bytes(used)
        if member.pidfd >= 0:
            self._selector.unregister(member.pidfd)
            os.close(member.pidfd)
        member.pid, member.pidfd = 0, -1
        worked = self._ended(member.number, pid, status) or time.monotonic() - member.started_s >= HEALTHY_AFTER_S
        member.start_at_s = time.monotonic() + member.delay.after(worked=worked)


def send(member: Process, signum: int) -> None:
    """Signal the process of a place, if there is one. It is not reaped yet, so its pid is nobody else's."""
    if member.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member.pid, signum)


def _nothing() -> None:
    """Woken is enough."""
