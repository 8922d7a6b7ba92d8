"""A set of child processes: started, reaped as soon as they end, and restarted with backoff."""

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from switchyard.workers.shared.child_table import Running
from switchyard.workers.shared.fork import descendants, peak_bytes
from switchyard.workers.supervisor.leases import Leftovers

FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 30.0
HEALTHY_AFTER_S = 10.0  # a process that ran for at least this time counts as healthy

logger = logging.getLogger("switchyard.workers")


@dataclass(slots=True)
class Process:
    """One position of a process set, and the process that runs there, if any."""

    index: int  # from 1
    wanted: bool = True  # a process is started here; without it, one that runs is not replaced when it ends
    pid: int = 0  # 0 while none runs
    started_s: float = 0.0
    start_at_s: float = 0.0
    told: bool = False  # the process got its signal to end
    peak_bytes: int = 0  # largest resident memory of the process before
    idle_deaths: int = 0

    def delay_s(self, *, worked: bool) -> float:
        """Return the seconds until the next start: 0 after a process that had worked, else doubled from 0.1 to 30."""
        if worked:
            self.idle_deaths = 0
            return 0.0
        delay_s = min(FIRST_DELAY_S * 2.0**self.idle_deaths, LONGEST_DELAY_S)
        self.idle_deaths = min(self.idle_deaths + 1, 16)
        return delay_s


class ProcessSet:
    """Child processes, watched one by one: the end of one does not affect another. SIGCHLD wakes the loop that works.

    Args:
        count: Processes that are started.
        spare: Further positions, empty until :meth:`fill`.
        start: Forks the process of an index and returns its pid.
        ended: Called with index, pid and wait status; returns whether the process had worked. One that did not, and
            lived for less than 10 s, is restarted with backoff.
    """

    def __init__(
        self, count: int, *, spare: int = 0, start: Callable[[int], int], ended: Callable[[int, int, int], bool]
    ) -> None:
        self._start = start
        self._ended = ended
        self.processes = [Process(index, wanted=index <= count) for index in range(1, count + spare + 1)]
        self.stopping = False

    @property
    def running(self) -> list[Process]:
        return [process for process in self.processes if process.pid]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.running]

    def work(self) -> None:
        """Reap processes that ended, and start those that are due."""
        for process in self.running:
            self._reap(process)
        for process in self._missing():
            if process.start_at_s <= time.monotonic():
                self._launch(process)

    def seconds_to_next(self) -> float:
        """Return the seconds until a start is due; infinity for none."""
        return min((process.start_at_s - time.monotonic() for process in self._missing()), default=math.inf)

    def fill(self, process: Process) -> None:
        """Start a process in a position, and keep it filled from now on."""
        process.wanted = True
        process.start_at_s = 0.0

    def end(self, process: Process, signum: int = signal.SIGTERM) -> None:
        """Signal a process, and do not restart it."""
        process.wanted = False
        send(process, signum)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        self.stopping = True
        for process in self.running:
            send(process, signum)

    def _missing(self) -> list[Process]:
        return [process for process in self.processes if process.wanted and not process.pid and not self.stopping]

    def _launch(self, process: Process) -> None:
        try:
            process.pid = self._start(process.index)
        except OSError as error:  # out of memory or of process ids: retry this process, the others keep running
            wait_s = process.delay_s(worked=False)
            process.start_at_s = time.monotonic() + wait_s
            logger.error("a process could not be started: %s; retried in %.1f s", error.strerror, wait_s)
            return
        process.started_s, process.told = time.monotonic(), False

    def _reap(self, process: Process) -> None:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if not pid:
            return
        process.peak_bytes = peak_bytes(used)
        process.pid = 0
        worked = self._ended(process.index, pid, status) or time.monotonic() - process.started_s >= HEALTHY_AFTER_S
        process.start_at_s = time.monotonic() + process.delay_s(worked=worked)


def send(process: Process, signum: int) -> None:
    """Signal a process, if it runs. It is not reaped yet, so that its pid cannot belong to another."""
    if not process.pid:
        return
    process.told |= signum == signal.SIGTERM
    # Processes that a task has started end with it: they would go on beside its retry.
    started = descendants(process.pid) if signum == signal.SIGKILL else []
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signum)
    for each in started:
        with contextlib.suppress(psutil.Error):
            each.kill()


STUCK_MESSAGE, NO_DESCRIPTORS = "stuck_message", "no_descriptors"
RECYCLED = ("recycled", "recycled_memory")  # age, or what hygiene found; memory
# Reasons for a replacement that is counted under its reason although the child drained.
REPLACED = (*RECYCLED, STUCK_MESSAGE, NO_DESCRIPTORS)


@dataclass(slots=True)
class ExitCause:
    """Reason for which the supervisor ends a child."""

    why: str  # label for metrics
    over: tuple[Running, ...] = ()  # messages over their limits, or cancelled, for which it is ended
    crash: str = ""  # cause to note with its running messages, when the end counts as a crash by them
    killed: bool = False  # it was sent SIGKILL
    kill_at_s: float = math.inf  # when it is, if it has not ended by itself


def suspects_of(
    leftovers: Leftovers, exit_cause: ExitCause | None, *, clean: bool, description: str
) -> tuple[tuple[Running, ...], str]:
    """Return the messages that crashed a child, unless it drained and was to, and the cause to store with them."""
    if exit_cause is not None and exit_cause.over:  # also after a clean exit: the grace may end before they do
        over = {(ran.lane, ran.id, ran.token) for ran in exit_cause.over}
        suspects = tuple(ran for ran in leftovers.running if (ran.lane, ran.id, ran.token) in over and ran.limit_ns)
        return suspects, f"limit of {suspects[0].limit_ns / 1e9:g} s" if suspects else ""
    if exit_cause is not None and exit_cause.why == NO_DESCRIPTORS:
        return tuple(leftovers.running), exit_cause.crash  # their limits stand while they wait for a server in vain
    running = tuple(ran for ran in leftovers.running if ran.limit_ns)
    if exit_cause is not None and exit_cause.crash:
        return running, exit_cause.crash
    if clean or (exit_cause is not None and exit_cause.killed):
        return (), ""
    # Also those whose task has ended: what it left may have ended the process before their acknowledgement, each time.
    return (*leftovers.running, *leftovers.unwritten), description
