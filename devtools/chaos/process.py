"""Chaos process: injects faults beside the supervisors of the pools, and prints the ledger at the end."""

from __future__ import annotations

import logging
import os
import random
import re
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import redis

from devtools.attempts import VARIABLE, AttemptLog, read_attempts
from devtools.chaos.faults import FaultInjector
from devtools.chaos.ledger import make_ledger
from devtools.chaos.monitor import EnqueueMonitor
from switchyard.broker.errors import BrokerError
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.pool_reports import PoolReports
from switchyard.broker.topology import Yard
from switchyard.workers.child.main import MIDDLEWARE_VARIABLE
from switchyard.workers.shared.fork import EX_CRASHED, SignalPipe, fork

logger = logging.getLogger("switchyard.chaos")

READ_EVERY_S = 0.2
RATE = re.compile(r"(\d+)/([smh])")
SECONDS = {"s": 1, "m": 60, "h": 3_600}


def read_rate(text: str) -> float:
    """Return faults per second from ``6/m``, ``2/s`` or ``10/h``.

    Raises:
        ValueError: the text has another form, or its count is below 1.
    """
    found = RATE.fullmatch(text)
    if found is None or int(found[1]) < 1:
        raise ValueError(f"{text!r} is not a rate; write the number of faults per unit, for example 6/m, 2/s or 10/h")
    return int(found[1]) / SECONDS[found[2]]


class Chaos:
    """Companion of the pools' common parent: starts the chaos process and stops it with the pools.

    Args:
        per_s: Faults per second, on average, at random times.
        seed: Equal seeds draw the same faults at the same intervals.
        url: Broker that the pools work on.
        log: Log of attempts that the children write; removed at the end.
    """

    def __init__(self, per_s: float, seed: int, yard: Yard, url: str, log: Path) -> None:
        self._per_s, self._seed, self._yard, self._url, self._log = per_s, seed, yard, url, log
        self._pid = 0

    def start(self, close_inherited: Callable[[], None]) -> None:
        """Fork the process. Call it before any child of a pool starts.

        Args:
            close_inherited: Called in the new process; closes descriptors that belong to the parent alone.
        """
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)
        os.environ[VARIABLE] = str(self._log)
        os.environ[MIDDLEWARE_VARIABLE] = f"{AttemptLog.__module__}.{AttemptLog.__qualname__}"
        parent_pid = os.getpid()
        self._pid = fork(
            lambda: run(self._per_s, self._seed, self._yard, self._url, self._log, parent_pid),
            title="chaos",
            close_inherited=[close_inherited],
        )

    def pools_drain(self) -> None:
        self._signal(signal.SIGTERM)

    def finish(self) -> None:
        """Let the process print the ledger, and wait for its end."""
        self._signal(signal.SIGQUIT)
        if self._pid:
            os.waitpid(self._pid, 0)
        self._log.unlink(missing_ok=True)

    def _signal(self, signum: int) -> None:
        if self._pid:  # not reaped yet, so the pid cannot belong to another process
            os.kill(self._pid, signum)


def run(per_s: float, seed: int, yard: Yard, url: str, log: Path, parent_pid: int) -> int:
    """Inject faults below the parent until SIGTERM, collect enqueued messages until SIGQUIT, and print the ledger."""
    signals = SignalPipe(noted=(signal.SIGTERM, signal.SIGQUIT), ignored=(signal.SIGINT, signal.SIGHUP, signal.SIGUSR1))
    client = connect(url, profile="quick")
    calls = calls_on(client)
    keys = yard.keys
    queues = [QueueOperations(calls, keys.queue(queue.name)) for queue in yard.queues]
    try:
        monitor = EnqueueMonitor(url)
        before = _enqueued_ids(queues)
        # The pools of this parent have not started yet, so every report is of another parent's pool.
        foreign_pools = sorted({report.pool for report in PoolReports(calls, keys).read_all()})
    except (redis.RedisError, BrokerError) as error:
        logger.error("no chaos: the server does not permit MONITOR, so there would be no ledger: %s", error)
        return EX_CRASHED
    draws = random.Random(seed)  # noqa: S311  no secret
    injector = FaultInjector(parent_pid, queues, client, draws)
    faults = list(injector.faults)
    injected: Counter[str] = Counter()
    has_gap = is_draining = False
    next_fault_s = time.monotonic() + draws.expovariate(per_s)
    logger.warning("chaos: %.2g faults a second, --chaos-seed %d", per_s, seed)
    if foreign_pools:
        logger.warning("chaos: %s", _warning_of(foreign_pools))
    while True:
        select.select([signals.read_fd, monitor.fd], [], [], READ_EVERY_S)
        try:
            monitor.read()
        except redis.RedisError as error:
            logger.warning("chaos: lost the server (%s); the ledger misses what is enqueued meanwhile", error)
            has_gap = True
            monitor = _reconnect(monitor, url, signals)
        received = signals.take()
        if signal.SIGQUIT in received or os.getppid() != parent_pid:
            break
        is_draining = is_draining or signal.SIGTERM in received
        if not is_draining and time.monotonic() >= next_fault_s:
            next_fault_s = time.monotonic() + draws.expovariate(per_s)
            _inject(injector, draws.choice(faults), injected)
    monitor.read()
    ledger = make_ledger(
        attempted=monitor.attempted,
        accepted=monitor.accepted,
        before=before,
        attempts=read_attempts(log),
        queues=queues,
        records=JobRecords(calls, keys, [queue.keys.queue for queue in queues]),
    )
    counts = "  ".join(f"{name} {injected[name]}" for name in faults)
    warnings = "the server was away meanwhile: the ledger has a gap\n" if has_gap else ""
    warnings += f"{_warning_of(foreign_pools)}\n" if foreign_pools else ""
    sys.stdout.write(f"chaos: {counts}\n{warnings}{ledger}\n")
    return 0


def _inject(injector: FaultInjector, name: str, injected: Counter[str]) -> None:
    try:
        description = injector.faults[name]()
    except (redis.RedisError, BrokerError) as error:
        logger.warning("chaos: %s: the server refused: %s", name, error)
        return
    if description:
        injected[name] += 1
        logger.warning("chaos: %s", description)
    else:
        logger.info("chaos: %s: no target", name)


def _warning_of(foreign_pools: list[str]) -> str:
    return (
        f"pools that this parent did not start ran as well ({', '.join(foreign_pools)}): what they complete counts as "
        "lost; stop them first, those of a demo too"
    )


def _enqueued_ids(queues: Iterable[QueueOperations]) -> frozenset[str]:
    found: set[str] = set()
    for queue in queues:
        found.update(str(id_, "utf-8", "replace") for id_ in queue.calls.command("HKEYS", queue.keys.bodies))
    return frozenset(found)


def _reconnect(monitor: EnqueueMonitor, url: str, signals: SignalPipe) -> EnqueueMonitor:
    """Wait until the server is back and return a new monitor with the ids collected so far."""
    monitor.close()
    while True:
        try:
            following = EnqueueMonitor(url)
        except redis.RedisError:
            select.select([signals.read_fd], [], [], 1.0)
            if os.getppid() == 1:
                raise
            continue
        following.attempted, following.accepted = monitor.attempted, monitor.accepted
        return following
