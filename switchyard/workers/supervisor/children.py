"""Lifecycle of a pool's children: start, replacement, and clean-up after their end."""

import logging
import math
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.stores.pool_reports import ON_PURPOSE
from switchyard.broker.topology import SUCCESSORS, Pool
from switchyard.middleware.redaction import without_secrets
from switchyard.workers.child.main import Assignment, start_child
from switchyard.workers.shared.child_table import ChildTable, Running
from switchyard.workers.shared.fork import crash_location, describe_exit, resident_bytes, stacks_file
from switchyard.workers.supervisor.leases import ChildLeases, Leftovers
from switchyard.workers.supervisor.processes import (
    RECYCLED,
    REPLACED,
    ExitCause,
    Process,
    ProcessSet,
    send,
    suspects_of,
)

POLL_EVERY_S = 0.25
IDLE_S = POLL_AGAIN_S = 1.0  # pause while nothing runs, and after the server did not answer
# The child raises in the task before this time; a greenlet that never yields does not see that.
INTERRUPT_AFTER_S = 0.4
END_AFTER_S = 3.0  # by SIGTERM, and by SIGKILL 5 s later
KILL_AFTER_GRACE_S = 5.0  # after the tasks' grace: for consumers to stop and connections to close
RESTED_NS = 2_000_000_000
MOST_LINES, LONGEST_LINE = 10, 400  # of the log that are kept, without secrets, with the messages of a crashed child
# Crashes are reported for so long, and at most so many.
CRASHES_KEPT_S, MOST_CRASHES, LAST_CRASHES = 3_600.0, 1_000, 3

Key = tuple[int, Running]

logger = logging.getLogger("switchyard.workers")


class CancellationWatch:
    """Running messages whose jobs were cancelled, with the time of each request.

    ``poll`` returns those of the messages, by index, whose jobs are to stop; its errors do not end the supervisor.
    """

    def __init__(self, poll: Callable[[Mapping[int, Sequence[Running]]], set[Key]]) -> None:
        self._poll = poll
        self._poll_at_s = 0.0
        self._since_ns: dict[Key, int] = {}
        self._interrupted: set[Key] = set()

    def update(self, running: Mapping[int, Sequence[Running]]) -> float:
        """Poll for cancellations of messages with a running limit, if it is due; return the seconds until the next."""
        now_s = time.monotonic()
        if self._since_ns:
            there = {(index, ran) for index, messages in running.items() for ran in messages}
            self._since_ns = {key: since for key, since in self._since_ns.items() if key in there}
            self._interrupted &= there
        if not any(running.values()):
            return IDLE_S
        if now_s >= self._poll_at_s:
            self._poll_at_s = now_s + POLL_EVERY_S
            try:
                for key in self._poll(running):
                    self._since_ns.setdefault(key, time.monotonic_ns())
            except Exception as error:  # noqa: BLE001  whatever a key may hold, the supervisor goes on
                if not isinstance(error, BrokerUnavailable):
                    logger.warning("cancellations of running jobs cannot be read now: %r", error)
                self._poll_at_s = now_s + POLL_AGAIN_S
        return max(self._poll_at_s - time.monotonic(), 0.0)

    def is_cancelled(self, index: int, ran: Running) -> bool:
        return (index, ran) in self._since_ns

    def to_interrupt(self) -> list[Key]:
        """Return, once each, the messages that did not stop by themselves in time."""
        at_ns = time.monotonic_ns() - int(INTERRUPT_AFTER_S * 1e9)
        due = [key for key, since in self._since_ns.items() if since <= at_ns and key not in self._interrupted]
        self._interrupted.update(due)
        return due

    def over_at_ns(self, index: int, ran: Running) -> int | None:
        """Return the monotonic time at which a message's child is terminated: for the hard limit, or a cancellation."""
        since_ns = self._since_ns.get((index, ran))
        if since_ns is None:
            return ran.over_at_ns
        cancelled_ns = since_ns + int(END_AFTER_S * 1e9)
        return cancelled_ns if ran.over_at_ns is None else min(cancelled_ns, ran.over_at_ns)


class ChildManager:
    """The children of a pool: its own, with one spare position for a successor, and isolated ones for suspects.

    Args:
        grace_s: Seconds that a child's tasks may take to end.
        close_inherited: Called in a child first, to close what belongs to the supervisor alone.
        child_ended: Called with the pid of each child that ended.
    """

    def __init__(
        self, pool: Pool, leases: ChildLeases, *, grace_s: float,
        close_inherited: Iterable[Callable[[], None]] = (), child_ended: Callable[[int], None] = lambda pid: None,
    ) -> None:  # fmt: skip
        self.pool = pool
        self.leases = leases
        self.restarts: dict[str, int] = {}
        self.crashes: deque[tuple[float, str]] = deque(maxlen=MOST_CRASHES)  # moment and reason of each
        self.exit_causes: dict[int, ExitCause] = {}
        self.paused = False
        self.quiet = self.quieted = False
        self.exclusive: Process | None = None
        spare = SUCCESSORS + pool.most_isolated
        self._table = ChildTable.create(pool.children + spare, pool.slots)
        self.rows = dict(enumerate(self._table.rows, start=1))
        self.process_set = ProcessSet(pool.children, spare=spare, start=self._start, ended=self._ended)
        self.own = self.process_set.processes[: pool.children + 1]
        self.isolated = self.process_set.processes[pool.children + 1 :]
        self.cancellations = CancellationWatch(leases.cancelled)
        self._grace_s = grace_s
        self.close_inherited = (*close_inherited, leases.close_inherited)
        self._child_ended = child_ended
        self._leftovers: list[tuple[Leftovers, tuple[Running, ...], str]] = []

    @property
    def running(self) -> list[Process]:
        return self.process_set.running

    @property
    def stopping(self) -> bool:
        return self.process_set.stopping

    @property
    def runs_tasks(self) -> bool:
        """Whether a task runs. One that has ended, and waits for the broker, does not."""
        return any(ran.limit_ns for process in self.running for ran in self.rows[process.index].running())

    @property
    def ready(self) -> bool:
        """Whether every child of the pool is up."""
        return sum(self.rows[process.index].read().ready for process in self.own if process.pid) >= self.pool.children

    def rest(self) -> bool:
        """Return whether every child is up and has run nothing for 2 s; then the next start wakes this process."""
        since_ns = time.monotonic_ns() - RESTED_NS
        states = [(row, row.read()) for row in (self.rows[process.index] for process in self.running)]
        if not self.ready or any(state.busy or state.progress_ns > since_ns for _, state in states):
            return False
        for row, _ in states:
            row.doze()
        return not any(row.read().busy for row, _ in states)

    def work(self) -> float:
        """Reap ended children, settle their messages, start due children; return the seconds until the next step."""
        self.process_set.work()
        leftovers, self._leftovers = self._leftovers, []
        for left, suspects, cause in leftovers:
            self.leases.settle(left, suspects, cause)
        self._start_isolated(self.leases.take_isolated_waiting())
        return min(self.leases.seconds_to_next(), self.process_set.seconds_to_next())

    def free_process(self) -> Process | None:
        """Return an unused position, for a successor of a child; ``None`` if there is none."""
        return next((process for process in self.own if not process.pid and not process.wanted), None)

    def replace(self, process: Process, exit_cause: ExitCause) -> None:
        """Terminate a child, and start its successor at the same time if a position is free."""
        self.exit_causes[process.index] = exit_cause
        free = self.free_process()
        if free is None or process in self.isolated:
            send(process, signal.SIGTERM)  # restarted in its own position
            return
        self.process_set.end(process)
        self.process_set.fill(free)

    def kill_at_s(self) -> float:
        """Return the monotonic time at which a child that gets its signal now is killed."""
        return time.monotonic() + self._grace_s + KILL_AFTER_GRACE_S

    def retire(self, process: Process, why: str) -> None:
        """Mark a child as replaced by a successor: for its tasks only their own limits apply, no grace period."""
        if process.pid:
            self.rows[process.index].retired = True
            self.exit_causes.setdefault(process.index, ExitCause(why))

    def kill(self, process: Process, exit_cause: ExitCause, fact: str = "") -> None:
        """Kill a child once, and log the fact for which it is killed, unless that was logged before."""
        if (earlier := self.exit_causes.get(process.index)) is not None and earlier.killed:
            return
        if fact:
            logger.error("pool %s: child %d %s; killed", self.pool.name, process.index, fact)
        exit_cause.killed = True
        self.exit_causes[process.index] = exit_cause
        send(process, signal.SIGKILL)

    def dump_stacks(self) -> None:
        """Have every child write its stacks to its file."""
        for process in self.running:
            path = stacks_file(self.pool.name, process.pid)
            logger.info("pool %s: child %d: %s", self.pool.name, process.index, path)
            send(process, signal.SIGUSR1)

    def stop(self, signum: int) -> None:
        """Signal all children, and restart none of them."""
        for process in self.process_set.processes:
            self.exit_causes.setdefault(process.index, ExitCause("stop")).killed |= signum == signal.SIGKILL
        self.process_set.stop(signum)

    def pause(self) -> None:
        """Drain all children and start none, until :meth:`resume`."""
        self.paused = True
        for process in self.process_set.processes:
            self.process_set.end(process)

    def resume(self) -> None:
        self.paused = False
        for process in self.own[: self.pool.children]:
            self.process_set.fill(process)

    def begin_quiet(self) -> None:
        """Have the children, also those that start later, fetch and start nothing. Isolated ones end: one is needed."""
        self.quiet = True
        for process in self.running:
            if process in self.isolated:
                self.end_unhurried(process)
            else:
                self.rows[process.index].quiet = True

    def end_quiet(self) -> None:
        """Have the children fetch again after :meth:`begin_quiet`, unless an operator quieted the supervisor."""
        self.quiet, self.exclusive = self.quieted, None
        for process in self.own:
            self.rows[process.index].quiet = self.quiet

    def set_quieted(self, quieted: bool) -> None:
        """Have the children start nothing until this is taken back; no quiet period begins meanwhile."""
        self.quieted = quieted
        if quieted:
            self.begin_quiet()
        else:
            self.end_quiet()

    def start_exclusive(self) -> None:
        """Start the isolated child that runs lapse suspects, quiet as well, unless isolated children still run."""
        if not any(process.pid for process in self.isolated):
            self.exclusive = self.isolated[0]
            self.process_set.fill(self.exclusive)

    def end_unhurried(self, process: Process) -> None:
        """End a child once its tasks have ended within their own limits."""
        self.rows[process.index].retired = True
        self.process_set.end(process)

    def _start(self, index: int) -> int:
        row = self.rows[index]
        row.clear()
        row.quiet = self.quiet
        self.exit_causes.pop(index, None)
        process = self.process_set.processes[index - 1]
        isolated, exclusive = process in self.isolated, process is self.exclusive
        slots = 1 if isolated else self.pool.slots
        served = self.leases.isolated if isolated else self.leases.served
        title = f"{self.pool.name} alone {index - len(self.own)}" if isolated else f"{self.pool.name} child {index}"
        child = self.leases.adopt(index, row, served, slots=slots, alone=exclusive)
        assignment = Assignment(
            pool=self.pool, title=title, child=child, index=index, lanes=served.names, slots=slots,
            grace_s=self._grace_s, isolated=isolated, exclusive=exclusive,
        )  # fmt: skip
        return start_child(assignment, self._table, close_inherited=self.close_inherited)

    def _start_isolated(self, waiting: int) -> None:
        """Start isolated children for waiting suspects: one for each, beside the busy ones, up to the maximum."""
        if not waiting or self.process_set.stopping or self.paused or self.quiet or self.leases.backlog.suspects_wait:
            return  # lapse suspects, and what waits among them, run in quiet periods
        busy = sum(self.rows[process.index].read().busy > 0 for process in self.isolated if process.pid)
        missing = min(waiting + busy, len(self.isolated)) - sum(process.wanted for process in self.isolated)
        for process in [process for process in self.isolated if not process.wanted][: max(missing, 0)]:
            self.process_set.fill(process)

    def _ended(self, index: int, pid: int, status: int) -> bool:
        """Record why a child ended and which messages it left; return whether the child had worked."""
        row, process = self.rows[index], self.process_set.processes[index - 1]
        state, logged, drained = row.read(), row.logged(), row.drained
        to_drain = process.told or row.quiet or row.full
        leftovers = self._without_cancelled(index, self.leases.leftovers(index, row))
        exit_cause = self.exit_causes.pop(index, None)
        row.clear()
        self._child_ended(pid)
        reason, description = describe_exit(status)
        # A task can end its process with any code, or have it drained by a signal: what it left running is suspect.
        clean = drained and (to_drain or not leftovers.running)
        if location := crash_location(stacks_file(self.pool.name, pid)):
            description += f" in {location}"
        suspects, cause = suspects_of(leftovers, exit_cause, clean=clean, description=description)
        isolated = process in self.isolated
        if cause and not cause.startswith("limit"):
            cause += f", pid {pid}, at most {process.peak_bytes / 1e6:.0f} MB"
            if isolated or self.pool.slots == 1:
                cause = "\n".join([cause, *(without_secrets(line)[:LONGEST_LINE] for line in logged[-MOST_LINES:])])
        self._leftovers.append((leftovers, suspects, cause))
        if isolated:
            # Its suspect waits to run isolated again.
            process.wanted = bool(suspects) and not (self.paused or self.quiet)
        if exit_cause is not None and exit_cause.why in REPLACED and clean:
            self._count_restart(exit_cause.why)
            logger.info("pool %s: child %d (pid %d) is replaced after %d tasks", self.pool.name, index, pid, state.done)
            return True
        # One that a pause told to drain may outlast the pause: its position is wanted again.
        drained_as_told = clean and (not process.wanted or (process.told and exit_cause is None))
        if drained_as_told or self.process_set.stopping or self.paused:
            if not clean:
                logger.warning("pool %s: child %d (pid %d) %s", self.pool.name, index, pid, description)
            return True
        # A child that was to be recycled, and crashed before it had drained, counts as a crash.
        self._count_restart(reason if exit_cause is None or exit_cause.why in RECYCLED else exit_cause.why)
        level = logging.WARNING if clean else logging.ERROR
        logger.log(level, "pool %s: child %d (pid %d) %s; it is replaced", self.pool.name, index, pid, description)
        return isolated or state.done > 0 or bool(suspects or leftovers.cancelled)

    def _count_restart(self, reason: str) -> None:
        self.restarts[reason] = self.restarts.get(reason, 0) + 1
        if reason not in ON_PURPOSE:
            self.crashes.append((time.monotonic(), reason))

    def recent_crashes(self) -> dict[str, int]:
        """Return how many children crashed within the last hour, by reason."""
        since_s = time.monotonic() - CRASHES_KEPT_S
        return dict(Counter(reason for at_s, reason in self.crashes if at_s >= since_s))

    def crashed(self) -> list[int]:
        """Return when the last three children crashed, in ms since the epoch; none where fewer did."""
        last = [now_ms() - int((time.monotonic() - at_s) * 1_000) for at_s, _ in list(self.crashes)[-LAST_CRASHES:]]
        return last if len(last) == LAST_CRASHES else []

    def _without_cancelled(self, index: int, leftovers: Leftovers) -> Leftovers:
        """Separate cancelled messages from the running ones: they never run again, so they are no suspects."""
        cancelled = [ran for ran in leftovers.running if ran.limit_ns and self.cancellations.is_cancelled(index, ran)]
        running = [ran for ran in leftovers.running if ran not in cancelled]
        return replace(leftovers, running=running, cancelled=cancelled)


# The next measurement, of 20 µs, is due before a child could reach its limit at the write rate of a processor.
MEASURE_EVERY_S, MEASURE_AT_MOST_EVERY_S, MEASURE_IDLE_EVERY_S = 0.1, 0.01, 5.0
GROWTH_BYTES_S = 2e9
POLL_SUCCESSOR_S = 0.02


class Recycling:
    """Replacement of children that ran enough tasks or hold too much memory, one at a time, successor first."""

    def __init__(self, children: ChildManager) -> None:
        self._children = children
        self._measure_at_s = 0.0
        self._dozing = False  # no child runs anything, and the next one to start something says so
        self._replacement: tuple[Process, Process, str] | None = None  # the old one, its successor, and why

    def enforce(self) -> float:
        """Replace and kill the children that are due; return the seconds until the next call is due."""
        if self._children.stopping or self._children.paused:
            self._replacement = None  # a pause ends both, and fills positions anew
            return math.inf
        resident = self._measure()
        if not self._children.quiet:  # a successor would not work before the quiet period ends
            if self._replacement is not None and not self._replacement[1].wanted:
                self._replacement = None  # a pause ended both
            if self._replacement is None:
                self._begin_replacement(resident)
            elif self._children.rows[self._replacement[1].index].working:
                old, _, why = self._replacement
                self._replacement = None
                self._children.retire(old, why)
                self._children.process_set.end(old)
            if self._replacement is not None:
                return POLL_SUCCESSOR_S
        return max(self._measure_at_s - time.monotonic(), 0.0) if self._measure_at_s else math.inf

    def _measure(self) -> dict[int, int]:
        """Kill children over the memory limit; return resident bytes by index, none until a measurement is due."""
        pool, rows = self._children.pool, [self._children.rows[process.index] for process in self._children.running]
        if not (pool.recycle_above_bytes or pool.memory_limit_bytes):
            return {}
        if time.monotonic() < self._measure_at_s and not (self._dozing and any(not row.dozes for row in rows)):
            return {}
        for row in rows:
            row.doze()  # before a look whether it runs anything: what starts after that wakes the supervisor
        self._dozing = not any(row.read().busy for row in rows)
        resident = {process.index: resident_bytes(process.pid) for process in self._children.running}
        if pool.memory_limit_bytes:
            self._kill_over_memory(resident, pool.memory_limit_bytes)
        soon_s = ((pool.memory_limit_bytes or math.inf) - max(resident.values(), default=0)) / GROWTH_BYTES_S
        wait_s = max(min(soon_s, MEASURE_EVERY_S), MEASURE_AT_MOST_EVERY_S)
        if self._dozing:
            wait_s = MEASURE_IDLE_EVERY_S
        else:
            for row in rows:
                row.doze(False)
        self._measure_at_s = time.monotonic() + wait_s
        return resident

    def _kill_over_memory(self, resident: Mapping[int, int], limit_bytes: int) -> None:
        for process in self._children.running:
            size_bytes = resident.get(process.index, 0)
            if size_bytes > limit_bytes:
                fact = f"takes {size_bytes / 1e6:.0f} MB, over its {limit_bytes / 1e6:.0f} MB"
                self._children.kill(process, ExitCause("memory", crash=f"killed for memory: its worker {fact}"), fact)

    def _begin_replacement(self, resident: Mapping[int, int]) -> None:
        children, pool = self._children, self._children.pool
        free = children.free_process()
        for process in children.own:
            row = children.rows[process.index]
            if not process.pid or not process.wanted or process.index in children.exit_causes:
                continue
            state = row.read()
            aged = pool.recycle_after and state.done >= pool.recycle_after
            grown = pool.recycle_above_bytes and resident.get(process.index, 0) > pool.recycle_above_bytes
            why = "recycled_memory" if grown or row.lacks_memory else "recycled"
            if free is None:  # one after the other, except children that are full and idle
                if row.full and not state.busy:
                    children.retire(process, why)
                    send(process, signal.SIGTERM)
                continue
            if row.full or aged or grown:
                self._replacement = (process, free, why)
                children.process_set.fill(free)
                return
