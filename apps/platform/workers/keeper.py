"""Keeps a set of child processes running: starts them, sees each end at once, starts it again with back-off."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from apps.platform.workers.backoff import RestartDelay

HAS_PIDFD = hasattr(os, "pidfd_open")

logger = logging.getLogger("switchyard.workers")


@dataclass(slots=True)
class Member:
    """One place in the set and the process that fills it, if any."""

    number: int
    pid: int = 0
    pidfd: int = -1
    started_s: float = 0.0
    start_at_s: float | None = 0.0
    delay: RestartDelay = field(default_factory=RestartDelay)


class Keeper:
    """A fixed number of child processes, each watched by itself: the end of one never touches another.

    Args:
        start: Forks the process for a place (1 …) and returns its pid.
        ended: Told number, pid, wait status and seconds until the restart (``None`` when stopping).
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        count: int,
        *,
        start: Callable[[int], int],
        ended: Callable[[int, int, int, float | None], None],
    ) -> None:
        self._selector = selector
        self._start = start
        self._ended = ended
        self.members = [Member(number) for number in range(1, count + 1)]
        self.stopping = False

    @property
    def pids(self) -> list[int]:
        """Processes that run."""
        return [member.pid for member in self.members if member.pid]

    def work(self) -> float | None:
        """Collect what ended and start what is due; return seconds until the next start, ``None`` for none."""
        for member in self.members:
            self._collect(member)
        waits = []
        for member in self.members:
            if member.start_at_s is None or self.stopping:
                continue
            wait = member.start_at_s - time.monotonic()
            if wait <= 0:
                self._launch(member)
            else:
                waits.append(wait)
        return min(waits, default=None)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Signal all processes and start none again."""
        self.stopping = True
        for pid in self.pids:
            # Not reaped yet, so the pid cannot belong to anybody else.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def shed(self) -> None:
        """Let go of descriptors in a forked child; the processes stay the parent's."""
        for member in self.members:
            if member.pidfd >= 0:
                os.close(member.pidfd)

    def _launch(self, member: Member) -> None:
        try:
            member.pid = self._start(member.number)
        except OSError as error:  # no memory or no process ids left: the others go on, this one is tried again
            wait = member.delay.after(0.0)
            member.start_at_s = time.monotonic() + wait
            logger.error("a process could not be started: %s; tried again in %.1f s", error.strerror, wait)
            return
        member.start_at_s = None
        member.started_s = time.monotonic()
        if HAS_PIDFD:
            member.pidfd = os.pidfd_open(member.pid)
            # Only wakes the loop: every turn of it collects.
            self._selector.register(member.pidfd, selectors.EVENT_READ, _nothing)

    def _collect(self, member: Member) -> None:
        if not member.pid:
            return
        pid, status = os.waitpid(member.pid, os.WNOHANG)
        if not pid:
            return
        if member.pidfd >= 0:
            self._selector.unregister(member.pidfd)
            os.close(member.pidfd)
        member.pid, member.pidfd = 0, -1
        wait = None
        if not self.stopping:
            wait = member.delay.after(time.monotonic() - member.started_s)
            member.start_at_s = time.monotonic() + wait
        self._ended(member.number, pid, status, wait)


def _nothing() -> None:
    """Woken is enough."""
