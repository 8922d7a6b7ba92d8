"""A child of a pool: Dramatiq's worker on the pool's lanes, until it is told to drain."""

from __future__ import annotations

import logging
import os
import select
import signal
import time

import dramatiq
from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from dramatiq.broker import Broker

from apps.platform.workers.signals import SignalPipe
from apps.platform.workers.slots import Slots, install
from apps.platform.workers.table import Row
from broker.topology import Pool, Yard

BEAT_S = 0.5
EX_LEFT_WORK = 3
CONNECTION_AGE_S = 60

# How soon a thread without work sees that it should stop, in ms.
LOOK_UP_MS = 500
LOOK_FOR_LEASES_S = 0.02

logger = logging.getLogger("switchyard.workers")


def serve(pool: Pool, row: Row, *, child: str, grace_s: float, parent_pid: int) -> int:
    """Work for a pool until SIGTERM, then drain; return 0, or 3 when tasks outlasted the grace.

    Runs in a process of its own, whose broker and database connections nobody else uses.

    Args:
        row: Where to write what this child does, and to read whether its supervisor has leases for it.
        child: Name under which the supervisor holds them.
        grace_s: Seconds that running tasks may take to end.
        parent_pid: The supervisor; when it is gone, so is this process.
    """
    # Ctrl-C reaches every process of a terminal, the supervisor decides what it means.
    signals = SignalPipe(noted=(signal.SIGTERM,), ignored=(signal.SIGINT, signal.SIGHUP, signal.SIGQUIT))
    broker = dramatiq.get_broker()
    broker.become(child, slots=pool.slots)  # type: ignore[attr-defined]
    keep_database_connections()
    if pool.nice:
        os.nice(pool.nice)
    slots = install(broker, Slots(row, settings.YARD, settings.YARD.served_by(pool), pool.slots))
    broker.emit_after("process_boot")
    worker = make_worker(settings.YARD, pool, broker)
    row.beat()
    row.set_ready()
    told: list[int] = []
    while not row.leased and not told:
        told = wait(signals, row, LOOK_FOR_LEASES_S, parent_pid)
    if told:
        return 0
    worker.start()
    while not told and all_work(worker):
        told = wait(signals, row, BEAT_S, parent_pid)
    return drain(worker, slots, row, grace_s)


def wait(signals: SignalPipe, row: Row, longest_s: float, parent_pid: int) -> list[int]:
    """Return the signals that came, waiting for one."""
    row.beat()
    select.select([signals.read_fd], [], [], longest_s)
    if os.getppid() != parent_pid:
        os._exit(EX_LEFT_WORK)  # where the kernel does not kill orphans
    return signals.take()


def make_worker(yard: Yard, pool: Pool, broker: Broker) -> dramatiq.Worker:
    """Return Dramatiq's worker for a pool, not started.

    Raises:
        ValueError: the pool serves no lane; Dramatiq would consume every queue.
    """
    lanes = set(yard.served_by(pool))
    if not lanes:
        raise ValueError(f"pool {pool.name}: it serves no lane; name its queues in project/topology.py")
    worker = dramatiq.Worker(broker, queues=lanes, worker_threads=pool.slots, worker_timeout=LOOK_UP_MS)
    worker.queue_prefetch = pool.prefetch or 2 * pool.slots
    return worker


def all_work(worker: dramatiq.Worker) -> bool:
    """Say whether every thread of a worker is there. One that ended by an exception would leave its slot empty."""
    ended = [thread.name for thread in (*worker.workers, *worker.consumers.values()) if not thread.is_alive()]
    if ended:
        logger.error("%s ended by an exception; this child drains, to be started again", ", ".join(ended))
    return not ended


def keep_database_connections() -> None:
    """Keep each slot's database connections from message to message, a minute at the most.

    Django's default, a connection for each unit of work, suits a web server whose threads come and go. Here it would
    cost more than many a job's queries. Before each message a connection that died is replaced. The queries that
    Django logs for a developer, 9,000 a connection, are not kept: no page of a worker shows them.
    """
    BaseDatabaseWrapper.queries_limit = 0
    for database in connections.settings.values():
        database["CONN_MAX_AGE"] = CONNECTION_AGE_S
        database["CONN_HEALTH_CHECKS"] = True


def drain(worker: dramatiq.Worker, slots: Slots, row: Row, grace_s: float) -> int:
    """Take no more work, let running tasks end within the grace; return the exit code.

    What is left, run or not, is taken back by the supervisor when this process has ended. It gives all of it back in
    one step and in order, and acknowledges what was not yet.
    """
    deadline = time.monotonic() + grace_s
    worker.broker.emit_before("worker_shutdown", worker)
    worker.broker.drain()  # type: ignore[attr-defined]
    for thread in worker.workers:
        thread.stop()
    for thread in worker.workers:
        while thread.is_alive() and (left_s := deadline - time.monotonic()) > 0:
            row.beat()
            thread.join(min(BEAT_S, left_s))
    left = len(slots.running)
    if left:
        logger.warning("%d tasks did not end within the grace period and are given back", left)
    worker.broker.emit_after("worker_shutdown", worker)
    return EX_LEFT_WORK if left else 0
