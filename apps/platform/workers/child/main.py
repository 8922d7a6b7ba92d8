"""A child of a pool: Dramatiq's worker on the pool's lanes, until it is told to drain."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import time
from typing import TextIO

import dramatiq
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.module_loading import import_string
from dramatiq.broker import Broker, MessageProxy
from dramatiq.common import iter_queue
from dramatiq.errors import ConnectionClosed

from apps.platform.conf import declared_yard
from apps.platform.workers.child.memory_guard import Ceiling
from apps.platform.workers.child.slot_tracking import SlotTracking, install
from apps.platform.workers.child.spawn import Assignment
from apps.platform.workers.shared.child_table import ChildRow
from apps.platform.workers.shared.signal_pipe import INTERRUPT, SignalPipe
from apps.platform.workers.shared.stack_files import dump_on_signal, stacks_file
from broker.errors import BrokerUnavailable
from broker.held_message import HeldMessage
from broker.interface import facilities
from broker.redis_broker import RedisBroker
from middleware import wait_for_broker
from middleware.cancellation import Cancellation

# Dotted paths of more middleware for children alone, separated by spaces. Each is called without arguments.
MIDDLEWARE_VARIABLE = "SWITCHYARD_CHILD_MIDDLEWARE"
BEAT_S = 0.5
EX_LEFT_WORK = 3
# A child for what runs alone stays so long without work: the next such message does not wait for a start.
ALONE_IDLE_S = 10.0
CONNECTION_AGE_S = 60

# How soon a thread without work sees that it should stop, in ms.
LOOK_UP_MS = 500
LOOK_FOR_LEASES_S = 0.02

logger = logging.getLogger("switchyard.workers")


def serve(assignment: Assignment, row: ChildRow, *, parent_pid: int) -> int:
    """Work for a pool until SIGTERM, then drain; return 0, or 3 when tasks outlasted the grace.

    Runs in a process of its own, whose broker and database connections nobody else uses.

    Args:
        row: Where to write what this child does, and to read whether its supervisor has leases for it.
        parent_pid: The supervisor; when it is gone, so is this process.
    """
    dump_on_signal(stacks_file(assignment.pool.name, os.getpid()))
    # Ctrl-C reaches every process of a terminal, the supervisor decides what it means.
    signals = SignalPipe(noted=(signal.SIGTERM,), ignored=(signal.SIGINT, signal.SIGHUP, signal.SIGQUIT))
    broker = dramatiq.get_broker()
    assert isinstance(broker, RedisBroker)  # noqa: S101  its supervisor starts on no other
    for path in os.environ.get(MIDDLEWARE_VARIABLE, "").split():
        broker.add_middleware(import_string(path)())
    broker.become(assignment.child, slots=assignment.slots)
    facilities(broker).barrier.finished = row
    keep_database_connections()
    if assignment.pool.nice:
        os.nice(assignment.pool.nice)
    for lane in assignment.lanes:
        broker.declare_queue(lane)
    slots = install(broker, SlotTracking(broker, row, declared_yard(), assignment.lanes))
    wait_for_broker.waiting = slots.without_limit
    broker.emit_after("process_boot")
    if assignment.pool.kind == "gevent":
        interrupt_on_signal(broker, slots)
    worker = make_worker(assignment, broker)
    ceiling = put_ceiling(assignment.pool.memory_limit_bytes, worker, row)
    keep_last_lines(row)
    row.beat()
    row.set_ready()
    told: list[int] = []
    while not row.leased and not told:
        told = wait(signals, row, LOOK_FOR_LEASES_S, parent_pid)
    if told:
        return 0
    worker.start()
    if ceiling is not None and assignment.slots == 1:
        ceiling.limit_allocations()
    row.progressed()
    row.set_working()
    while not told and all_work(worker) and not (assignment.alone and (row.full or idle_s(row) > ALONE_IDLE_S)):
        told = wait(signals, row, BEAT_S, parent_pid)
    return drain(worker, slots, row, signals, assignment.grace_s)


def put_ceiling(limit_bytes: int | None, worker: dramatiq.Worker, row: ChildRow) -> Ceiling | None:
    """Have a child start nothing that does not fit into its memory; return what sees to it, if there is a limit."""
    if limit_bytes is None:
        return None

    def return_all(message: MessageProxy) -> None:
        give_back(worker)
        give_back_one(worker, message)

    return install(worker.broker, Ceiling(row, limit_bytes, give_back=return_all))


def keep_last_lines(row: ChildRow) -> None:
    """Copy what this process logs into its row, where its supervisor finds it when it has crashed."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(Copied(handler.stream, row))


class Copied:
    """A stream that copies what is written to it into a row. Handlers lock themselves around it."""

    def __init__(self, stream: TextIO, row: ChildRow) -> None:
        self._stream, self._row = stream, row
        self.flush = stream.flush

    def write(self, text: str) -> int:
        """Write."""
        self._row.log(text)
        return self._stream.write(text)


def interrupt_on_signal(broker: Broker, slots: SlotTracking) -> None:
    """Have a signal raise in the greenlet that runs right now, if its job was asked to stop.

    The handler runs in that greenlet. One that computes, or waits without giving way, hears of it in no other way.
    Where tasks have threads it does nothing.
    """
    [cancellation] = (entry for entry in broker.middleware if isinstance(entry, Cancellation))
    signal.signal(INTERRUPT, lambda signum, frame: cancellation.interrupt_here(slots.is_asked))
    signal.siginterrupt(INTERRUPT, False)


def idle_s(row: ChildRow) -> float:
    """Return for how long a child has run nothing."""
    state = row.read()
    return 0.0 if state.busy else (time.monotonic_ns() - state.progress_ns) / 1e9


def wait(signals: SignalPipe, row: ChildRow, longest_s: float, parent_pid: int) -> list[int]:
    """Return the signals that came, waiting for one."""
    row.beat()
    select.select([signals.read_fd], [], [], longest_s)
    if os.getppid() != parent_pid:
        os._exit(EX_LEFT_WORK)  # where the kernel does not kill orphans
    return signals.take()


def make_worker(assignment: Assignment, broker: Broker) -> dramatiq.Worker:
    """Return Dramatiq's worker for a child, not started.

    Raises:
        ValueError: it serves no lane; Dramatiq would consume every queue.
    """
    if not assignment.lanes:
        raise ValueError(f"pool {assignment.pool.name}: it serves no lane; name its queues in project/topology.py")
    slots = assignment.slots
    worker = dramatiq.Worker(broker, queues=set(assignment.lanes), worker_threads=slots, worker_timeout=LOOK_UP_MS)
    worker.queue_prefetch = 1 if assignment.alone else assignment.pool.prefetch or 2 * slots
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


def drain(worker: dramatiq.Worker, slots: SlotTracking, row: ChildRow, signals: SignalPipe, grace_s: float) -> int:
    """Take no more work, give back what does not run, let the rest end within the grace; return the exit code.

    The tasks of a child whose successor works already have no grace but their own limits, until the pool drains.

    What runs still is taken back by the supervisor when this process has ended, and what ended is acknowledged by it.
    """
    deadline = math.inf if row.retired else time.monotonic() + grace_s
    worker.broker.emit_before("worker_shutdown", worker)
    worker.broker.drain()  # type: ignore[attr-defined]
    for thread in worker.workers:
        thread.stop()
    for thread in worker.workers:
        while thread.is_alive() and (left_s := deadline - time.monotonic()) > 0:
            give_back(worker)
            row.beat()
            thread.join(min(BEAT_S, left_s))
            if signals.take():
                deadline = min(deadline, time.monotonic() + grace_s)
    left = len(slots.running)
    if left:
        logger.warning("%d tasks did not end within the grace period and are given back", left)
    worker.broker.emit_after("worker_shutdown", worker)
    with contextlib.suppress(BrokerUnavailable):  # then the supervisor gives back what nobody knows to be finished
        facilities(worker.broker).barrier.flush()
    return EX_LEFT_WORK if left else 0


def give_back_one(worker: dramatiq.Worker, message: MessageProxy) -> None:
    """Give a message back to the head of its lane, or leave it held where the server does not take it."""
    with contextlib.suppress(ConnectionClosed):
        worker.consumers[message.queue_name].requeue_messages([message])
    message.moved = True  # type: ignore[attr-defined]


def give_back(worker: dramatiq.Worker) -> None:
    """Give what waits for a thread back to the heads of its lanes; what the server does not take stays held."""
    unstarted: dict[str, list[HeldMessage]] = {}
    for item in iter_queue(worker.work_queue):
        unstarted.setdefault(item.message.queue_name, []).append(item.message)
    for lane, messages in unstarted.items():
        with contextlib.suppress(ConnectionClosed):
            worker.consumers[lane].requeue_messages(sorted(messages, key=lambda held: int(held.lease.token)))
