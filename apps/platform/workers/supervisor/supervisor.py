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

from apps.platform.conf import declared_yard, switchyard_settings
from apps.platform.workers.broker_watch import make_watch
from apps.platform.workers.metrics.exposition import exposition
from apps.platform.workers.metrics.files import Ended, claim
from apps.platform.workers.metrics.http import MetricsListener
from apps.platform.workers.shared.child_table import ChildRow
from apps.platform.workers.shared.fork import EX_CRASHED, memory_bytes, prepare_to_fork
from apps.platform.workers.shared.signal_pipe import HANDLED, SignalPipe
from apps.platform.workers.supervisor.children import ChildManager
from apps.platform.workers.supervisor.report import Reporter
from apps.platform.workers.supervisor.stack_requests import StacksOnRequest
from broker.stores.pool_reports import PoolReport
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
        own_row: ChildRow | None = None,
    ) -> None:
        self.pool = pool
        self._grace_s = grace_s
        self._parent_pid = os.getppid()
        self._own_row = own_row
        self._watch = make_watch()
        self._state = "starting"
        self._kill_at_s: float | None = None
        self._killed = False
        self._report_at_s = 0.0
        self._selector = selectors.DefaultSelector()
        self._signals = self._listen_to_signals()
        self._folder, self._folder_lock = claim(switchyard_settings().metrics_dir, pool.name)
        self._ended = Ended(self._folder)
        self._listener = MetricsListener(
            self._selector, self._metrics, self._unwell, host=metrics_host, port=metrics_port
        )
        self._reporter = Reporter(pool)
        # Only children that run are signalled: they are not waited for yet, so their pids are nobody else's.
        self._stacks = StacksOnRequest(pool.name, send=os.kill, answer=self._reporter.answer_stacks)
        self._crew = ChildManager(
            self._selector,
            pool,
            declared_yard(),
            dramatiq.get_broker(),
            switchyard_settings().broker_url,
            grace_s=grace_s,
            shed=[self._shed],
            ended=self._ended.add,
        )

    def run(self) -> int:
        """Supervise; return 0 after a drain, 70 when children had to be killed for it."""
        logger.info("pool %s: metrics at http://127.0.0.1:%d/metrics", self.pool.name, self._listener.port)
        prepare_to_fork()
        self._selector.register(self._signals.read_fd, selectors.EVENT_READ, lambda: None)
        while True:
            self._obey(self._signals.take())
            next_s = min(self._crew.work(), self._ended.fold())
            self._hold_leases()
            self._heed_broker()
            if self._crew.stopping and not self._crew.pids:
                break
            self._notice_ready()
            self._report()
            self._listener.expire()
            for key, _ in self._selector.select(self._sleep_s(next_s)):
                key.data()
        if not self._crew.settled:
            logger.error(
                "pool %s: the broker is away; what its children held starts when its leases lapse", self.pool.name
            )
            self._killed = True
        self._crew.close()
        if not self._crew.silent:
            self._reporter.remove()
        logger.info("pool %s: drained" if not self._killed else "pool %s: stopped by force", self.pool.name)
        return EX_CRASHED if self._killed else EX_OK

    def _listen_to_signals(self) -> SignalPipe:
        if self._own_row is None:
            return SignalPipe(noted=(*HANDLED, signal.SIGCHLD))
        # The parent passes on what a terminal sends to all of us.
        return SignalPipe(
            noted=(signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCHLD),
            ignored=(signal.SIGINT, signal.SIGHUP),
        )

    def _obey(self, signals: list[int]) -> None:
        for signum in signals:
            if signum == signal.SIGCHLD:
                continue
            if signum == signal.SIGUSR1:
                self._crew.dump_stacks()
                continue
            at_once = signum == signal.SIGQUIT or (self._own_row is None and self._crew.stopping)
            if at_once:
                self._kill("told to stop at once")
            elif not self._crew.stopping:
                self._drain()
        if os.getppid() != self._parent_pid and self._own_row is not None:
            self._kill("the parent is gone")  # where the kernel does not kill orphans
        if self._kill_at_s is not None and self._crew.silent and self._crew.pids:
            self._kill("the broker does not answer, they can neither give back nor acknowledge what they hold")
        if self._kill_at_s is not None and time.monotonic() >= self._kill_at_s and self._crew.pids:
            self._kill(f"not done {KILL_AFTER_GRACE_S:g} s after the grace period of {self._grace_s:g} s")

    def _drain(self) -> None:
        logger.info("pool %s: draining, up to %g s", self.pool.name, self._grace_s)
        self._state = "draining"
        self._kill_at_s = time.monotonic() + self._grace_s + KILL_AFTER_GRACE_S
        self._report_at_s = 0.0
        self._crew.hurry()
        self._crew.stop(signal.SIGTERM)

    def _kill(self, why: str) -> None:
        logger.warning("pool %s: killing %d children: %s", self.pool.name, len(self._crew.pids), why)
        self._state = "draining"
        self._kill_at_s = None
        self._killed = True
        self._crew.stop(signal.SIGKILL)

    def _hold_leases(self) -> None:
        """End children that lost their leases, unless the broker lost them all: then nobody has their messages."""
        lost = self._crew.hold_leases()
        if lost and not self._heed_broker(at_once=True):
            for place in lost:
                self._crew.kill(place, "lost_lease", "lost its lease, others have its messages")

    def _heed_broker(self, *, at_once: bool = False) -> bool:
        """Look at the broker's server when it is time; end the children while its keyspace is not the one they knew.

        Their running tasks may end. Say whether the pool pauses.
        """
        paused = self._state == "paused"
        if self._crew.stopping or not (at_once or self._watch.due()):
            return paused
        if self._crew.away and (self._watch.told_away or not self._crew.silent):
            return paused  # it would take a second, which may be needed, to tell what is known
        why = self._watch.look().pause
        if bool(why) == paused:
            return paused
        self._report_at_s = 0.0
        if why:
            logger.error("pool %s: paused, it fetches nothing: %s", self.pool.name, why)
            self._state = "paused"
            self._crew.rest()
        else:
            logger.info("pool %s: goes on", self.pool.name)
            self._state = "starting"
            self._crew.resume()
        return bool(why)

    def _shed(self) -> None:
        """Let go, in a child, of what is the supervisor's."""
        self._selector.close()
        self._listener.close()
        self._watch.close()
        self._signals.close()
        os.close(self._folder_lock)

    def _notice_ready(self) -> None:
        if self._state != "starting" or not self._crew.ready:
            return
        self._state = "up"
        self._report_at_s = 0.0
        if self._own_row is not None:
            self._own_row.set_ready()
        pool = self.pool
        logger.info("pool %s: ready (%d × %d %s)", pool.name, pool.processes, pool.slots, pool.kind)

    def _report(self) -> None:
        if time.monotonic() >= self._report_at_s and not self._crew.away:
            self._report_at_s = time.monotonic() + self._reporter.write(self._build_report())
            if self._reporter.asked:
                self._stacks.begin(self._reporter.asked, self._crew.pids)
                self._reporter.asked = ""
        self._stacks.finish()

    def _build_report(self) -> PoolReport:
        return self._reporter.build(
            self._crew.states(),
            restarts=self._crew.restarts,
            state=self._state,
            metrics_port=self._listener.port,
        )

    def _unwell(self) -> str:
        # Neither a restart nor more traffic helps a pool that drains, or waits for a person to look at the broker.
        return "" if self._state in ("draining", "paused") else self._crew.unwell()

    def _metrics(self) -> bytes:
        return exposition(self._folder, self._build_report(), memory_bytes(self._crew.pids))

    def _sleep_s(self, next_s: float) -> float:
        waits = [LONGEST_SLEEP_S, next_s, self._stacks.seconds_to_next()]
        if not self._crew.away:
            waits += [self._report_at_s - time.monotonic(), self._watch.seconds_to_next()]
        if self._state == "starting":
            waits.append(LOOK_FOR_READY_S)
        if self._kill_at_s is not None:
            waits.append(self._kill_at_s - time.monotonic())
        return max(min(waits), 0.0)
