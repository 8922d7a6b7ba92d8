"""One pool's supervisor: starts its children, starts a dead one again, drains them, and tells how they are.

One thread and one selector do it all, because a process that forks must have no other threads.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time

import dramatiq
from django.conf import settings
from prometheus_client.multiprocess import mark_process_dead

from apps.platform.workers.broker_watch import make_watch
from apps.platform.workers.children import start_child
from apps.platform.workers.keeper import Keeper, send
from apps.platform.workers.metrics_dirs import claim
from apps.platform.workers.metrics_listener import MetricsListener
from apps.platform.workers.pool_leases import Estate, PoolLeases
from apps.platform.workers.pool_metrics import exposition
from apps.platform.workers.processes import EX_CRASHED, describe_exit, memory_bytes, prepare_to_fork
from apps.platform.workers.reporting import Reporter
from apps.platform.workers.signals import SignalPipe
from apps.platform.workers.table import Row, Table
from broker.pool_reports import PoolReport
from broker.topology import Pool

GRACE_S = 25.0
# After the tasks' grace: for consumers to stop and connections to close.
KILL_AFTER_GRACE_S = 5.0
LOOK_FOR_READY_S = 0.1
LONGEST_SLEEP_S = 2.0

EX_OK = 0

logger = logging.getLogger("switchyard.workers")


class Supervisor:
    """Runs one pool until it is told to drain.

    Args:
        metrics_port: On loopback; 0 finds a free one.
        grace_s: Seconds that running tasks may take to end once the pool drains.
        own_row: Where a common parent looks whether the pool is ready. Without a parent, Ctrl-C is the supervisor's
            own business, and a second signal ends it at once.

    Raises:
        OSError: the metrics port is taken.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        metrics_port: int = 0,
        metrics_host: str = "127.0.0.1",
        grace_s: float = GRACE_S,
        own_row: Row | None = None,
    ) -> None:
        self.pool = pool
        self._grace_s = grace_s
        self._parent_pid = os.getppid()
        self._own_row = own_row
        self._table = Table.create(pool.processes, pool.slots)
        self._rows = dict(enumerate(self._table.rows, start=1))
        self._leases = PoolLeases(pool, settings.YARD, dramatiq.get_broker(), settings.SWITCHYARD.broker_url)
        self._estates: list[Estate] = []
        self._watch = make_watch()
        self._restarts: dict[str, int] = {}
        self._state = "starting"
        self._kill_at_s: float | None = None
        self._killed = False
        self._report_at_s = 0.0
        self._selector = selectors.DefaultSelector()
        self._signals = self._listen_to_signals()
        self._folder, self._folder_lock = claim(settings.SWITCHYARD.metrics_dir, pool.name)
        self._listener = MetricsListener(self._selector, self._metrics, host=metrics_host, port=metrics_port)
        self._reporter = Reporter(pool)
        self._keeper = Keeper(self._selector, pool.processes, start=self._start, ended=self._ended)

    def run(self) -> int:
        """Supervise; return 0 after a drain, 70 when children had to be killed for it."""
        logger.info("pool %s: metrics at http://127.0.0.1:%d/metrics", self.pool.name, self._listener.port)
        prepare_to_fork()
        self._selector.register(self._signals.read_fd, selectors.EVENT_READ, lambda: None)
        while True:
            self._obey(self._signals.take())
            next_start_s = self._keeper.work()
            self._hold_leases()
            self._heed_broker()
            if self._keeper.stopping and not self._keeper.pids:
                break
            self._notice_ready()
            self._report()
            self._listener.expire()
            for key, _ in self._selector.select(self._sleep_s(next_start_s)):
                key.data()
        self._reporter.remove()
        logger.info("pool %s: drained" if not self._killed else "pool %s: stopped by force", self.pool.name)
        return EX_CRASHED if self._killed else EX_OK

    def _listen_to_signals(self) -> SignalPipe:
        if self._own_row is None:
            return SignalPipe(noted=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD))
        # The parent passes on what a terminal sends to all of us.
        return SignalPipe(
            noted=(signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD), ignored=(signal.SIGINT, signal.SIGHUP)
        )

    def _obey(self, signals: list[int]) -> None:
        for signum in signals:
            if signum == signal.SIGCHLD:
                continue
            at_once = signum == signal.SIGQUIT or (self._own_row is None and self._keeper.stopping)
            if at_once:
                self._kill("told to stop at once")
            elif not self._keeper.stopping:
                self._drain()
        if os.getppid() != self._parent_pid and self._own_row is not None:
            self._kill("the parent is gone")  # where the kernel does not kill orphans
        if self._kill_at_s is not None and time.monotonic() >= self._kill_at_s and self._keeper.pids:
            self._kill(f"not done {KILL_AFTER_GRACE_S:g} s after the grace period of {self._grace_s:g} s")

    def _drain(self) -> None:
        logger.info("pool %s: draining, up to %g s", self.pool.name, self._grace_s)
        self._state = "draining"
        self._kill_at_s = time.monotonic() + self._grace_s + KILL_AFTER_GRACE_S
        self._report_at_s = 0.0
        self._keeper.stop(signal.SIGTERM)

    def _kill(self, why: str) -> None:
        logger.warning("pool %s: killing %d children: %s", self.pool.name, len(self._keeper.pids), why)
        self._state = "draining"
        self._kill_at_s = None
        self._killed = True
        self._keeper.stop(signal.SIGKILL)

    def _hold_leases(self) -> None:
        """Take back what the dead left, after others were started in their places, and keep what the living hold."""
        for estate in self._estates:
            self._leases.settle(estate)
        self._estates = []
        if self._leases.seconds_to_next() > 0:
            return
        lost = self._leases.tick(self._rows)
        if lost and self._heed_broker(at_once=True):
            return  # with its keyspace; nobody has its messages
        for place in lost:
            logger.error("pool %s: child %d lost its lease, others have its messages; killed", self.pool.name, place)
            send(self._keeper.members[place - 1], signal.SIGKILL)

    def _heed_broker(self, *, at_once: bool = False) -> bool:
        """Look at the broker's server when it is time; end the children while its keyspace is not the one they knew.

        Their running tasks may end. Say whether the pool pauses.
        """
        paused = self._state == "paused"
        if self._keeper.stopping or not (at_once or self._watch.due()):
            return paused
        why = self._watch.look().pause
        if bool(why) == paused:
            return paused
        self._report_at_s = 0.0
        if why:
            logger.error("pool %s: paused, it fetches nothing: %s", self.pool.name, why)
            self._state = "paused"
            for member in self._keeper.members:
                self._keeper.end(member)
        else:
            logger.info("pool %s: goes on", self.pool.name)
            self._state = "starting"
            for member in self._keeper.members[: self.pool.processes]:
                self._keeper.fill(member)
        return bool(why)

    def _start(self, number: int) -> int:
        row = self._rows[number]
        row.clear()
        child = self._leases.adopt(number, row)
        return start_child(self.pool, number, self._table, child=child, grace_s=self._grace_s, shed=[self._shed])

    def _ended(self, number: int, pid: int, status: int) -> bool:
        mark_process_dead(pid, path=str(self._folder))
        row = self._rows[number]
        worked = row.read().done > 0
        self._estates.append(self._leases.ended(number, row))
        row.clear()
        reason, told = describe_exit(status)
        if self._keeper.stopping or self._state == "paused":
            if status:
                logger.warning("pool %s: child %d (pid %d) %s", self.pool.name, number, pid, told)
            return worked
        self._restarts[reason] = self._restarts.get(reason, 0) + 1
        self._report_at_s = 0.0
        logger.error("pool %s: child %d (pid %d) %s; it is replaced", self.pool.name, number, pid, told)
        return worked

    def _shed(self) -> None:
        """Let go, in a child, of what is the supervisor's."""
        self._selector.close()
        self._keeper.shed()
        self._listener.close()
        self._leases.close()
        self._watch.close()
        self._signals.close()
        os.close(self._folder_lock)

    def _notice_ready(self) -> None:
        if self._state != "starting" or not all(row.read().ready for row in self._table.rows):
            return
        self._state = "up"
        self._report_at_s = 0.0
        if self._own_row is not None:
            self._own_row.set_ready()
        pool = self.pool
        logger.info("pool %s: ready (%d × %d %s)", pool.name, pool.processes, pool.slots, pool.kind)

    def _report(self) -> None:
        if time.monotonic() >= self._report_at_s:
            self._report_at_s = time.monotonic() + self._reporter.write(self._build_report())

    def _build_report(self) -> PoolReport:
        running = [(member.pid, member.number) for member in self._keeper.members if member.pid]
        return self._reporter.build(
            [(pid, self._table.rows[number - 1].read()) for pid, number in running],
            restarts=self._restarts,
            state=self._state,
            metrics_port=self._listener.port,
        )

    def _metrics(self) -> bytes:
        return exposition(self._folder, self._build_report(), memory_bytes(self._keeper.pids))

    def _sleep_s(self, next_start_s: float | None) -> float:
        waits = [LONGEST_SLEEP_S, self._report_at_s - time.monotonic(), self._leases.seconds_to_next()]
        waits.append(self._watch.seconds_to_next())
        if self._state == "starting":
            waits.append(LOOK_FOR_READY_S)
        if next_start_s is not None:
            waits.append(next_start_s)
        if self._kill_at_s is not None:
            waits.append(self._kill_at_s - time.monotonic())
        return max(min(waits), 0.0)
