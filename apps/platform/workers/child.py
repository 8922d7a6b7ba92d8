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
from dramatiq.errors import BrokerConnectionError

from apps.platform.workers.signals import SignalPipe
from apps.platform.workers.slots import Row, Slots, install
from broker.topology import Pool, Yard

BEAT_S = 0.5
EX_LEFT_WORK = 3
CONSUMERS_STOP_MS = 1_500
CONNECTION_AGE_S = 60

# Dramatiq's consumers poll: an idle one backs off up to the worker's timeout, which is therefore the longest wait of a
# message that arrives at an idle pool. A quarter of the objective leaves the rest to the work before it.
POLL_SHARE = 4
FASTEST_POLL_MS, SLOWEST_POLL_MS = 20, 1_000
POLL_WITHOUT_OBJECTIVE_MS = 500

logger = logging.getLogger("switchyard.workers")


def poll_ms(yard: Yard, pool: Pool) -> int:
    """Return how long an idle consumer of a pool may sleep, in ms, by the strictest objective of its queues.

    Retry lanes promise nothing: a pool of nothing else polls twice a second.
    """
    objectives = [
        queue.objective_ms
        for queue in yard.queues
        if queue.name in yard.served_by(pool) and queue.objective_ms is not None
    ]
    if not objectives:
        return POLL_WITHOUT_OBJECTIVE_MS
    return max(FASTEST_POLL_MS, min(min(objectives) // POLL_SHARE, SLOWEST_POLL_MS))


def serve(pool: Pool, row: Row, *, grace_s: float, parent_pid: int) -> int:
    """Work for a pool until SIGTERM, then drain; return 0, or 3 when tasks outlasted the grace and were handed back.

    Runs in a process of its own, whose broker and database connections nobody else uses.

    Args:
        row: Where to write what this child does.
        grace_s: Seconds that running tasks may take to end.
        parent_pid: The supervisor; when it is gone, so is this process.
    """
    # Ctrl-C reaches every process of a terminal, the supervisor decides what it means.
    signals = SignalPipe(noted=(signal.SIGTERM,), ignored=(signal.SIGINT, signal.SIGHUP, signal.SIGQUIT))
    broker = dramatiq.get_broker()
    become_a_worker_of_its_own(broker)
    keep_database_connections()
    if pool.nice:
        os.nice(pool.nice)
    slots = install(broker, row)
    broker.emit_after("process_boot")
    worker = make_worker(settings.YARD, pool, broker)
    row.beat()
    worker.start()
    row.set_ready()
    while not signals.take() and all_work(worker):
        row.beat()
        select.select([signals.read_fd], [], [], BEAT_S)
        if os.getppid() != parent_pid:
            os._exit(EX_LEFT_WORK)  # where the kernel does not kill orphans
    return drain(worker, slots, row, grace_s)


def make_worker(yard: Yard, pool: Pool, broker: Broker) -> dramatiq.Worker:
    """Return Dramatiq's worker for a pool, not started.

    Raises:
        ValueError: the pool serves no lane; Dramatiq would consume every queue.
    """
    lanes = set(yard.served_by(pool))
    if not lanes:
        raise ValueError(f"pool {pool.name}: it serves no lane; name its queues in project/topology.py")
    worker = dramatiq.Worker(broker, queues=lanes, worker_threads=pool.slots, worker_timeout=poll_ms(yard, pool))
    worker.queue_prefetch = pool.prefetch or 2 * pool.slots
    return worker


def all_work(worker: dramatiq.Worker) -> bool:
    """Say whether every thread of a worker is there. One that ended by an exception would leave its slot empty."""
    ended = [thread.name for thread in (*worker.workers, *worker.consumers.values()) if not thread.is_alive()]
    if ended:
        logger.error("%s ended by an exception; this child drains, to be started again", ", ".join(ended))
    return not ended


def become_a_worker_of_its_own(broker: Broker) -> None:
    """Take a new identity with the broker: under a shared one nobody would notice that this child died."""
    renew = getattr(broker, "renew_identity", None)
    if renew is not None:
        renew()


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
    """Take no more work, let running tasks end within the grace, hand the rest back; return the exit code."""
    deadline = time.monotonic() + grace_s
    for thread in worker.workers:
        thread.stop()
    # Joined here and not by Worker.stop, which counts the time of each thread against all later ones.
    for thread in worker.workers:
        while thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            row.beat()
            thread.join(min(BEAT_S, left))
    worker.stop(timeout=CONSUMERS_STOP_MS)
    left_over = hand_back(worker, slots)
    worker.broker.close()
    return EX_LEFT_WORK if left_over else 0


def hand_back(worker: dramatiq.Worker, slots: Slots) -> int:
    """Give running messages back to their queues, so that they start elsewhere now, and return how many.

    They may be run twice, as after any kill: their tasks die with this process.
    """
    running = slots.running
    for message in running:
        try:
            worker.consumers[message.queue_name].requeue_messages([message])
        except BrokerConnectionError:
            logger.warning("message %s could not be handed back; it runs again when it lapses", message.message_id)
    if running:
        logger.warning("%d tasks did not end within the grace period and were handed back", len(running))
    return len(running)
