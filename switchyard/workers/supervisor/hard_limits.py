"""Hard limits, cancellations and the kill of children that hang; quiet periods, in which lapse suspects run alone."""

import logging
import math
import time
from collections.abc import Iterator, Mapping

from switchyard.workers.shared.child_table import ChildRow, Running
from switchyard.workers.shared.fork import INTERRUPT
from switchyard.workers.supervisor.children import POLL_EVERY_S, ChildManager
from switchyard.workers.supervisor.processes import NO_DESCRIPTORS, RECYCLED, STUCK_MESSAGE, ExitCause, Process, send

# Time between the SIGTERM and the SIGKILL of a child whose task exceeded its limit or did not stop.
KILL_AFTER_LIMIT_S = 5.0
LONGEST_PAUSE_S = 1.0

logger = logging.getLogger("switchyard.workers")


class HardLimits:
    """Termination of children that hang, or whose tasks exceed their hard limits or do not stop when cancelled."""

    def __init__(self, children: ChildManager) -> None:
        self._children, self._cancellations = children, children.cancellations
        self.heartbeats = Heartbeats()

    def enforce(self) -> float:
        """Enforce all limits; return the seconds until the next call is due."""
        self._kill_hung()
        return min(self._poll_cancellations(), self._enforce_limits())

    def _kill_hung(self) -> None:
        """Kill idle children that hang. A child that runs a task has until the task's hard limit."""
        children = self._children
        processes = {process.pid: process for process in children.running}
        silent = self.heartbeats.silent({pid: children.rows[process.index] for pid, process in processes.items()})
        for pid, silent_s in silent:
            process = processes[pid]
            if process.index not in children.exit_causes:
                children.kill(process, ExitCause("hung"), f"sent no heartbeat for {silent_s:.0f} s")

    def _poll_cancellations(self) -> float:
        """Poll for cancelled jobs, and interrupt their greenlets; return the seconds until the next poll."""
        children = self._children
        if children.leases.keeper.away:
            return math.inf  # the server does not answer, and each poll would delay the children
        rows = {process.index: children.rows[process.index] for process in children.running}
        running = {index: [ran for ran in row.running() if ran.limit_ns] for index, row in rows.items()}
        next_s = self._cancellations.update(running)
        if children.pool.kind == "gevent":
            for index, ran in self._cancellations.to_interrupt():
                rows[index].request_stop(ran)
                send(children.process_set.processes[index - 1], INTERRUPT)
            next_s = min(next_s, POLL_EVERY_S) if any(running.values()) else next_s
        return next_s

    def _enforce_limits(self) -> float:
        """Terminate children whose tasks exceed their limits; return the seconds until the next limit."""
        now_ns = time.monotonic_ns()
        next_ns = now_ns + int(LONGEST_PAUSE_S * 1e9)
        for process in self._children.running:
            running = [
                (at_ns, ran)
                for ran in self._children.rows[process.index].running()
                if ran.limit_ns and (at_ns := self._cancellations.over_at_ns(process.index, ran))
            ]
            over = tuple(ran for at_ns, ran in running if at_ns <= now_ns)
            kill_at_ns = [at_ns + int(KILL_AFTER_LIMIT_S * 1e9) for at_ns, _ in running]
            if over and process.index not in self._children.exit_causes:
                self._end(process, over)
            if any(at_ns <= now_ns for at_ns in kill_at_ns):
                self._children.kill(process, ExitCause(self._reason(process, over), over))
            next_ns = min([next_ns, *(at for at in (*kill_at_ns, *(at for at, _ in running)) if at > now_ns)])
        return (next_ns - now_ns) / 1e9

    def _end(self, process: Process, over: tuple[Running, ...]) -> None:
        why = self._reason(process, over)
        state = "cancelled" if why == "cancelled" else "over their hard limit"
        logger.error(
            "pool %s: child %d: %d tasks are %s, one may take %g s; it has %g s to end",
            self._children.pool.name, process.index, len(over), state, over[0].limit_ns / 1e9, KILL_AFTER_LIMIT_S,
        )  # fmt: skip
        self._children.replace(process, ExitCause(why, over))

    def _reason(self, process: Process, over: tuple[Running, ...]) -> str:
        cancelled = all(self._cancellations.is_cancelled(process.index, ran) for ran in over)
        return "cancelled" if cancelled else "hard_limit"


# A child writes a heartbeat every second. A starting child loads everything before its first one.
HUNG_S, BOOT_S = 10.0, 60.0


class Heartbeats:
    """Time of each child's last heartbeat. One that is silent for ``hung_s`` hangs; ``boot_s`` before it is ready."""

    def __init__(self, *, hung_s: float = HUNG_S, boot_s: float = BOOT_S) -> None:
        self._hung_s, self._boot_s = hung_s, boot_s
        self._checked_s = time.monotonic()
        # Last heartbeat; when it was first seen; when the child last ran a task or gave a heartbeat.
        self._seen: dict[int, tuple[int, float, float]] = {}

    def silent(self, rows: Mapping[int, ChildRow]) -> list[tuple[int, float]]:
        """Return pid and seconds since the last heartbeat of each idle child whose heartbeat is overdue."""
        now_s = time.monotonic()
        if now_s - self._checked_s > self._hung_s / 2:
            self._seen.clear()  # this process was suspended, its children may have been as well
        self._checked_s = now_s
        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in rows}
        found = []
        for pid, row in rows.items():
            state = row.read()
            beat_ns, answered_s, since_s = self._seen.get(pid, (-1, now_s, now_s))
            if beat_ns != state.beat_ns:
                answered_s = since_s = now_s
            elif any(ran.limit_ns for ran in row.running()):  # it may hold the interpreter lock
                since_s = now_s
            elif now_s - since_s > (self._hung_s if state.ready else self._boot_s):
                found.append((pid, now_s - since_s))
            self._seen[pid] = (state.beat_ns, answered_s, since_s)
        return found

    def unanswered(self) -> dict[int, float]:
        """Return pid -> seconds since the last heartbeat at the last check, also of children that run a task."""
        return {pid: self._checked_s - answered_s for pid, (_, answered_s, _) in self._seen.items()}


def replace_stuck(children: ChildManager) -> None:
    """Replace children whose rows are marked as stuck, or as ill (no file descriptor left, or closed ones).

    After the grace period for running tasks they are killed. What an ill child ran may have caused that, and counts.
    """
    if children.stopping or children.paused:
        return
    for process in children.running:
        row, exit_cause = children.rows[process.index], children.exit_causes.get(process.index)
        if row.ill and (exit_cause is None or exit_cause.why in RECYCLED):  # also one that drains with no deadline
            crash = "it left no file descriptor, or closed those of its worker"
            children.replace(process, ExitCause(NO_DESCRIPTORS, crash=crash, kill_at_s=children.kill_at_s()))
        elif row.stuck and exit_cause is None:
            logger.error(
                "pool %s: child %d holds a message that no thread runs, or a lock that nobody releases; it is replaced",
                children.pool.name, process.index,
            )  # fmt: skip
            children.replace(process, ExitCause(STUCK_MESSAGE, kill_at_s=children.kill_at_s()))
        elif exit_cause is not None and time.monotonic() >= exit_cause.kill_at_s:
            children.kill(process, exit_cause, "did not end by itself")


PERIOD_S = 5.0  # for starts of suspects; the last of them may take longer
SETTLED_S = 0.25  # until the row of a quiet child shows for certain what it was just starting
IDLE_S = 1.0  # after which the period ends, if its child has run nothing for so long
START_S = 30.0  # for the start of that child
# Time that a period first waits for running tasks while other work waits; each vain wait doubles it.
PATIENCE_S = 15.0
POLL_S = 0.05


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
