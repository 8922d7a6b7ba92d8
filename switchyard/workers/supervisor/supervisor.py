"""Supervisor of one pool: starts its children, restarts dead ones, drains them, and reports their state.

One thread with one selector does all of this, because a process that forks must have no other threads. Beside it one
process, of one supervisor, examines the yard and sends its alerts while no scheduler leads.
"""

import contextlib
import logging
import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import dramatiq
from django.apps import apps

from switchyard.broker.errors import BrokerError
from switchyard.broker.keys import Keys
from switchyard.broker.process import is_patched
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.limit_counts import Lock
from switchyard.broker.stores.pool_reports import QUIETED, PoolReport
from switchyard.broker.topology import Pool
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.long_running import LEASE_S, anyone_leads
from switchyard.workers.child.main import execute
from switchyard.workers.metrics import EndedChildren, MetricsListener, PoolFolder, exposition
from switchyard.workers.preflight import make_watch
from switchyard.workers.shared.child_table import ChildRow
from switchyard.workers.shared.fork import describe_exit, fork, memory_bytes, prepare_to_fork, signals_of_parent
from switchyard.workers.supervisor.children import KILL_AFTER_GRACE_S, ChildManager, Recycling
from switchyard.workers.supervisor.hard_limits import HardLimits, QuietPeriods, replace_stuck
from switchyard.workers.supervisor.leases import connect_leases
from switchyard.workers.supervisor.processes import ExitCause, ProcessSet
from switchyard.workers.supervisor.report import (
    CountFlush,
    Instructions,
    PoolHealth,
    Reporter,
    SilentChildren,
    StackRequests,
)

NAME: Final = "alerts"
# A scheduler that is restarted leads again by then.
ALONE_S = 15.0
# Looks that are further apart do not say what was between them.
GAP_S = 10.0

logger = logging.getLogger("switchyard.workers")


class StandIn:
    """The process, while this supervisor holds the lock for it. Without a channel for alerts there is none."""

    def __init__(
        self,
        calls: RedisCalls,
        keys: Keys,
        *,
        close_inherited: Iterable[Callable[[], None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._calls, self._keys, self._close_inherited = calls, keys, tuple(close_inherited)
        self._lock = Lock(calls, keys, NAME, lease_ms=int(LEASE_S * 1_000))
        app = apps.app_configs.get("switchyard_operations")  # a project may be without it
        self._run = app.stand_in if app is not None and switchyard_settings().alert_urls else None  # type: ignore[attr-defined]
        self._alone_since_s = self._looked_s = 0.0
        self._pid = 0

    def look(self) -> None:
        """Start the process once no scheduler has led for 15 s, and end it when one leads or another holds the lock.

        Blocks for at most 2 s, while the broker does not answer.
        """
        if self._run is None:
            return
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid = 0
        now_s = self._clock()
        try:
            if anyone_leads(self._calls, self._keys) or now_s - self._looked_s > GAP_S:
                self._alone_since_s = now_s
            self._looked_s = now_s
            if now_s - self._alone_since_s < ALONE_S or not self._lock.acquire():
                self.end()
            elif not self._pid:
                logger.warning("no scheduler leads: this pool sends the alerts until one does")
                self._pid = fork(partial(_run, self._run), title="alerts", close_inherited=self._close_inherited)
        except BrokerError as error:
            logger.warning("no answer to whether a scheduler leads: %s", error.kind)

    def end(self) -> None:
        """End the process, so that another supervisor may start its own."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError, BrokerError):
                os.kill(self._pid, signal.SIGTERM)
                self._lock.release()


def _run(run: Callable[[], int]) -> int:
    if is_patched():  # where greenlets take turns, a call that blocks would hold up every other
        execute("switchyard.operations.stand_in", [])
    return run()


GRACE_S = 25.0
POLL_READY_S = 0.1
LONGEST_SLEEP_S = 2.0
TOGETHER_S = 1.0  # while nothing runs, what is due so soon after something else is done with it
BESIDE = "schedules and history"


class Supervisor:
    """Supervisor of one pool, until a signal drains it.

    Args:
        metrics_port: 0 chooses a free one.
        grace_s: Seconds that running tasks may take to end once the pool drains.
        own_row: Row in which the supervisor reports to a common parent whether the pool is ready. Without a parent, the
            supervisor handles Ctrl-C itself, and a second signal stops it at once, except SIGHUP.
        beside: Runs in a further process until a signal stops it; the process is started again when it ends.

    Raises:
        OSError: the metrics port is taken.
    """

    def __init__(
        self, pool: Pool, *, metrics_port: int = 0, metrics_host: str = "127.0.0.1", grace_s: float = GRACE_S,
        own_row: ChildRow | None = None, beside: Callable[[], int] | None = None,
    ) -> None:  # fmt: skip
        self.pool = pool
        self._grace_s = grace_s
        self._parent_pid = os.getppid()
        self._own_row = own_row
        self._state = "starting"
        self._kill_at_s: float | None = None
        self._killed = False
        self._report_at_s = 0.0
        self._watch = make_watch()
        self._selector = selectors.DefaultSelector()
        self._signals = signals_of_parent(below=own_row is not None)
        self._folder = PoolFolder(switchyard_settings().metrics_dir, pool.name)
        self._ended_children = EndedChildren(self._folder.path)
        self._metrics_host = metrics_host
        self._listener = MetricsListener(
            self._selector, self._metrics, self._unhealthy_reason, host=metrics_host, port=metrics_port
        )
        self._reporter = Reporter(pool)
        # Only running children are signalled: they are not reaped yet, so that no other process has their pid.
        self._stacks = StackRequests(pool.name, self._reporter.answer_stacks)
        self._leases = connect_leases(pool, declared_yard(), dramatiq.get_broker(), switchyard_settings().broker_url)
        self._run_beside = beside
        count = 0 if beside is None else 1
        self._beside = ProcessSet(count, start=self._start_beside, ended=self._beside_ended)
        self._children = ChildManager(
            pool, self._leases, grace_s=grace_s, close_inherited=[self._close_inherited],
            child_ended=self._ended_children.add,
        )  # fmt: skip
        self._limits = HardLimits(self._children)
        self._recycling = Recycling(self._children)
        self._quiet_periods = QuietPeriods(self._children)
        self._health = PoolHealth(self._children)
        self._silent = SilentChildren(self._children)
        self._counts = CountFlush(
            self._folder.path, pool=pool.name, release=switchyard_settings().release, member=self._reporter.member,
            store=self._reporter.facts,
        )  # fmt: skip
        self._stand_in = StandIn(
            self._reporter.calls, declared_yard().keys, close_inherited=self._children.close_inherited
        )
        self._instructions = Instructions(self._children, started_at=self._reporter.started_at, stop=self._drain)

    def run(self) -> int:
        """Supervise; return 0 after a drain, 70 when children had to be killed for it."""
        host = f"[{self._metrics_host}]" if ":" in self._metrics_host else self._metrics_host
        logger.info("pool %s: metrics at http://%s:%d/metrics", self.pool.name, host, self._listener.port)
        prepare_to_fork()
        self._selector.register(self._signals.read_fd, selectors.EVENT_READ, lambda: None)
        while True:
            if self._own_row is not None:
                self._own_row.beat()
            self._handle_signals(self._signals.take())
            self._enforce_drain()
            self._keep_leases()
            replace_stuck(self._children)
            self._beside.work()
            next_s = min(
                self._beside.seconds_to_next(),
                self._children.work(),
                self._quiet_periods.work(),
                self._limits.enforce(),
                self._recycling.enforce(),
                self._ended_children.fold(),
            )
            self._check_broker_health()
            self._folder.look()
            if self._children.stopping and not self._children.running:
                if not self._beside.running:
                    break
                if not self._beside.stopping:  # it writes down what ended during the drain
                    self._beside.stop(signal.SIGTERM)
            self._check_ready()
            self._report()
            self._listener.expire()
            for key, _ in self._selector.select(self._sleep_s(next_s)):
                key.data()
        if not self._leases.settled:
            logger.error(
                "pool %s: not all messages were returned to the broker; the rest start when their leases expire",
                self.pool.name,
            )
            self._killed = True
        self._leases.close()
        self._stand_in.end()
        if not self._leases.keeper.silent:
            self._counts.flush()
            self._reporter.remove()
        logger.info("pool %s: drained" if not self._killed else "pool %s: stopped by force", self.pool.name)
        return os.EX_SOFTWARE if self._killed else os.EX_OK

    def _handle_signals(self, signals: list[int]) -> None:
        for signum in signals:
            # A terminal that closes sends SIGHUP twice.
            if signum == signal.SIGCHLD or (signum == signal.SIGHUP and self._children.stopping):
                continue
            if signum == signal.SIGUSR1:
                self._children.dump_stacks()
                continue
            if signum == signal.SIGQUIT or (self._own_row is None and self._children.stopping):
                self._kill("told to stop at once")
            elif not self._children.stopping:
                self._drain()

    def _drain(self) -> None:
        logger.info("pool %s: draining, up to %g s", self.pool.name, self._grace_s)
        self._state = "draining"
        self._kill_at_s = time.monotonic() + self._grace_s + KILL_AFTER_GRACE_S
        self._report_at_s = 0.0
        self._leases.keeper.poll_now()
        self._children.stop(signal.SIGTERM)

    def _enforce_drain(self) -> None:
        """Kill children that outlast the grace period, that run nothing without a broker, or whose parent is gone."""
        if self._own_row is not None and os.getppid() != self._parent_pid and not self._killed:
            self._kill("the parent is gone")  # where the kernel does not kill orphans
        if self._kill_at_s is None or not (self._children.running or self._beside.running):
            return
        if self._leases.keeper.silent and not self._children.runs_tasks:
            self._kill("the broker does not answer, they can neither release nor acknowledge their messages")
        elif time.monotonic() >= self._kill_at_s:
            self._kill(f"not done {KILL_AFTER_GRACE_S:g} s after the grace period of {self._grace_s:g} s")

    def _kill(self, why: str) -> None:
        logger.warning("pool %s: killing %d children: %s", self.pool.name, len(self._children.running), why)
        self._state = "draining"
        self._kill_at_s = None
        self._killed = True
        self._children.stop(signal.SIGKILL)
        self._beside.stop(signal.SIGKILL)

    def _start_beside(self, index: int) -> int:
        assert self._run_beside is not None  # noqa: S101  for the type checker: else no process is wanted
        return fork(self._run_beside, title=BESIDE, close_inherited=self._children.close_inherited)

    def _beside_ended(self, index: int, pid: int, status: int) -> bool:
        # Ctrl-C and systemd signal it as well; it is started once more, to write down what ends during the drain.
        if not (self._beside.stopping or self._children.stopping):
            logger.error("%s (pid %d) %s; it is started again", BESIDE, pid, describe_exit(status)[1])
        return False  # with backoff: its database may be broken

    def _keep_leases(self) -> None:
        """Renew the leases; kill children that lost theirs, unless the broker lost all: then no worker has them."""
        if self._leases.seconds_to_next() > 0:
            return
        lost = self._leases.tick(self._children.rows)
        if lost and not self._check_broker_health(at_once=True):
            for index in lost:
                process = self._children.process_set.processes[index - 1]
                fact = "lost its lease, other owners have its messages"
                self._children.kill(process, ExitCause("lost_lease"), fact)

    def _check_broker_health(self, *, at_once: bool = False) -> bool:
        """Check the broker when it is due; return whether the pool pauses, while its keyspace is not the known one."""
        paused = self._state == "paused"
        if self._children.stopping or not (at_once or not self._watch.seconds_to_next()):
            return paused
        keeper = self._leases.keeper
        if keeper.away and (self._watch.told_away or not keeper.silent):
            return paused  # the state is known, and a check would block for a second
        why = self._watch.look().pause
        if bool(why) == paused:
            return paused
        self._report_at_s = 0.0
        if why:
            logger.error("pool %s: paused, it fetches nothing: %s", self.pool.name, why)
            self._state = "paused"
            self._children.pause()
        else:
            logger.info("pool %s: resumed", self.pool.name)
            self._state = "starting"
            self._health.reset()
            self._children.resume()
        return bool(why)

    def _close_inherited(self) -> None:
        self._selector.close()
        self._listener.close()
        self._watch.close()
        self._signals.close()
        self._folder.close()

    def _check_ready(self) -> None:
        if self._state != "starting" or not self._children.ready:
            return
        self._state = "up"
        self._report_at_s = 0.0
        if self._own_row is not None:
            self._own_row.ready = True
        pool = self.pool
        logger.info("pool %s: ready (%d × %d %s)", pool.name, pool.children, pool.slots, pool.kind)

    def _report(self) -> None:
        if time.monotonic() >= self._report_at_s and not self._leases.keeper.away:
            wait_s, asked = self._reporter.write(self._build_report(), self._instructions.quieted)
            self._report_at_s = time.monotonic() + wait_s
            self._counts.work()
            if not self._children.stopping:
                self._stand_in.look()
            if asked.stacks:
                self._stacks.begin(asked.stacks, self._children.process_set.pids)
            if asked.instruction is not None and self._instructions.obey(asked.instruction):
                self._report_at_s = 0.0
        self._stacks.finish()

    def _build_report(self) -> PoolReport:
        state = QUIETED if self._state == "up" and self._instructions.quieted else self._state
        silent = self._silent.look(self._limits.heartbeats.unanswered())
        return self._reporter.build(self._children, silent=silent, state=state, metrics_port=self._listener.port)

    def _unhealthy_reason(self) -> str:
        # A restart does not help a pool that drains, or waits for a person to examine the broker.
        return "" if self._state in ("draining", "paused") else self._health.unhealthy_reason()

    def _metrics(self) -> bytes:
        pids = [*self._children.process_set.pids, *self._beside.pids]
        return exposition(self._folder.path, self._build_report(), memory_bytes(pids))

    def _sleep_s(self, next_s: float) -> float:
        waits = [LONGEST_SLEEP_S, next_s, self._stacks.seconds_to_next(), self._leases.seconds_to_next()]
        if not self._leases.keeper.away:
            waits += [self._report_at_s - time.monotonic(), self._watch.seconds_to_next()]
        if self._state == "starting":
            waits.append(POLL_READY_S)
        if self._kill_at_s is not None:
            waits.append(self._kill_at_s - time.monotonic())
        until_s = soonest_s = max(min(waits), 0.0)
        if soonest_s and self._state == "up" and self._stacks.seconds_to_next() == math.inf and self._children.rest():
            until_s += TOGETHER_S
        return max(wait_s for wait_s in (soonest_s, *waits) if wait_s <= until_s)
