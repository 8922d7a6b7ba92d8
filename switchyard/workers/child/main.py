"""Child of a pool: forked from the loaded supervisor, or executed anew for gevent; Dramatiq's worker, until drained."""

import asyncio
import contextlib
import json
import logging
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from queue import Empty
from typing import Any, NoReturn, TextIO

import dramatiq
import dramatiq.worker
from django.utils.module_loading import import_string
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import AsyncIO

from switchyard import database
from switchyard.addon import addon_for
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.process import is_patched, usable_cpus
from switchyard.broker.redis.addresses import is_sentinel_url
from switchyard.broker.topology import Pool
from switchyard.broker.yard_broker import YardBroker
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.middleware import wait_for_broker
from switchyard.middleware.cancellation import Cancellation, ShutdownNotices
from switchyard.middleware.errors import PermanentFailure
from switchyard.middleware.logs import CountedHandler
from switchyard.workers.child.hygiene import ChildHygiene, disown_copies, put_clocks_back
from switchyard.workers.child.slot_tracking import MemoryGuard, SlotTracking, StuckMessages, install
from switchyard.workers.shared.child_table import ChildRow, ChildTable
from switchyard.workers.shared.fork import INTERRUPT, SignalPipe, dump_on_signal, fork, import_path, stacks_file

# Dotted paths of more middleware for children alone, separated by spaces. Each is called without arguments.
MIDDLEWARE_VARIABLE = "SWITCHYARD_CHILD_MIDDLEWARE"
BEAT_S = 1.0
EX_LEFT_WORK = 3
ISOLATED_IDLE_S = 10.0  # for which an idle isolated child stays up, so that the next suspect waits for no start
POLL_STOP_MS = 1_000  # after which an idle consumer notices that it should stop
POLL_LEASES_S = 0.02
FAILOVER_PAUSE_S = 1.0  # Dramatiq's of 3 s would outlast the start of the new master

logger = logging.getLogger("switchyard.workers")


@dataclass(frozen=True, slots=True)
class Assignment:
    """Role of a child: everything its supervisor decides before the start."""

    pool: Pool
    title: str  # shown by ``ps``
    child: str  # its name in the broker
    index: int  # its row of the table, from 1
    lanes: tuple[str, ...]
    slots: int
    grace_s: float
    isolated: bool  # it runs suspects, one at a time, and ends when there are none left
    exclusive: bool = False  # the pool's other children are quiet meanwhile; only then it runs lapse suspects

    def to_fields(self) -> dict[str, Any]:
        """Return the assignment as JSON can hold it."""
        return {**asdict(self), "pool": self.pool.name}


def read_assignment(fields: Mapping[str, Any]) -> Assignment:
    """Return the assignment of such fields, with the pool of that name of the declared yard."""
    return Assignment(**{**fields, "pool": declared_yard().pool(fields["pool"]), "lanes": tuple(fields["lanes"])})


def serve(assignment: Assignment, row: ChildRow, *, parent_pid: int) -> int:
    """Work for a pool, in a process of its own, until SIGTERM; drain, and return 0, or 3 when tasks outlasted that."""
    code = work(assignment, row, parent_pid)
    row.drained = True
    return code


def work(assignment: Assignment, row: ChildRow, parent_pid: int) -> int:
    """Work and drain, as :func:`serve` describes."""
    dump_on_signal(stacks_file(assignment.pool.name, os.getpid()))
    # Ctrl-C reaches every process of a terminal; the supervisor handles it.
    signals = SignalPipe(noted=(signal.SIGTERM,), ignored=(signal.SIGINT, signal.SIGHUP, signal.SIGQUIT))
    disown_copies(assignment.title)
    broker = dramatiq.get_broker()
    assert isinstance(broker, YardBroker)  # noqa: S101  its supervisor starts on no other
    for path in os.environ.get(MIDDLEWARE_VARIABLE, "").split():
        broker.add_middleware(import_string(path)())
    broker.become(assignment.child, slots=assignment.slots)
    barrier = facilities(broker).barrier
    barrier.finished = row
    barrier.worker_place = barrier.worker_place._replace(pool=assignment.pool.name, worker=assignment.child)
    database.keep_in_child(assignment.slots)
    if assignment.pool.nice:
        os.nice(assignment.pool.nice)
    for lane in assignment.lanes:
        broker.declare_queue(lane)
    broker.quiet = lambda: row.quiet
    broker.runs_suspects, broker.held_marks = assignment.exclusive, row.held_marks
    broker.promises = () if assignment.isolated else assignment.pool.promises
    leaves_suspects = assignment.isolated and not assignment.exclusive
    slots = SlotTracking(broker, row, declared_yard(), assignment.lanes, quiet_for_suspects=leaves_suspects)
    install(broker, slots)
    wait_for_broker.waiting = slots.without_limit
    broker.emit_after("process_boot")
    if assignment.pool.kind == "gevent":
        interrupt_on_signal(broker, slots)
    worker = make_worker(assignment, broker)
    slots.release = partial(release_all, worker)
    shutdown_notices(broker).may_finish = lambda: row.retired
    limit_bytes = assignment.pool.memory_limit_bytes
    guard = None if limit_bytes is None else install(broker, MemoryGuard(row, limit_bytes, release=slots.release))
    copy_log(row)
    row.beat()
    # The supervisor kills a child over its limit. Before its first message no message is to be suspected of that.
    if wait_until(lambda: guard is None or not guard.over_limit, signals, row, parent_pid):
        return 0
    row.ready = True
    if received := wait_until(lambda: row.leased and not row.quiet, signals, row, parent_pid):
        return 0
    worker.start()
    work_queue: Any = worker.work_queue  # a WorkQueue, put there by the broker
    work_queue.patient = True  # drain() ends it
    if guard is not None and assignment.slots == 1:
        guard.limit_allocations()
    row.progressed()
    row.working = True
    stuck = StuckMessages(broker, row, declared_yard(), queued=lambda: [item.message for item in work_queue.waiting()])
    hygiene = ChildHygiene(broker, row, slots, signals, assignment.slots)
    while not received and all_work(worker) and not (assignment.isolated and is_done(row)):
        received = wait(signals, row, BEAT_S, parent_pid)
        stuck.check()
        hygiene.check()
        if row.quiet:
            release_unstarted(worker)
    return drain(worker, hygiene, assignment.grace_s)


def copy_log(row: ChildRow) -> None:
    """Copy this process's log into its row, where its supervisor finds it after a crash."""
    for handler in logging.getLogger().handlers:  # one of a file may use more of its stream than ``write``
        if isinstance(handler, logging.StreamHandler) and type(handler) in (logging.StreamHandler, CountedHandler):
            handler.setStream(LogCopy(handler.stream, row))


class LogCopy:
    """Stream that copies its text into a row. Handlers lock themselves around it."""

    def __init__(self, stream: TextIO, row: ChildRow) -> None:
        self._stream, self._row, self._pid = stream, row, os.getpid()
        self.flush = stream.flush

    def write(self, text: str) -> int:
        if os.getpid() == self._pid:  # a process that a task forked has no row
            self._row.log(text)
        return self._stream.write(text)


def interrupt_on_signal(broker: Broker, slots: SlotTracking) -> None:
    """Install a signal handler that raises in the running greenlet if its supervisor requested the job's stop.

    No other greenlet can interrupt one that computes or blocks without yielding. In threads the handler does nothing.
    """
    [cancellation] = (entry for entry in broker.middleware if isinstance(entry, Cancellation))
    signal.signal(INTERRUPT, lambda signum, frame: cancellation.interrupts.cancel_here(slots.is_to_stop))
    signal.siginterrupt(INTERRUPT, False)


def is_done(row: ChildRow) -> bool:
    """Return whether an isolated child may end: it has no memory left, is quiet, or has run nothing for 10 s."""
    state = row.read()
    return (
        row.full or row.quiet or (not state.busy and (time.monotonic_ns() - state.progress_ns) / 1e9 > ISOLATED_IDLE_S)
    )


def wait(signals: SignalPipe, row: ChildRow, longest_s: float, parent_pid: int) -> list[int]:
    """Wait for a signal; return those that came."""
    row.beat()
    select.select([signals.read_fd] if signals.is_open() else [], [], [], longest_s)
    if os.getppid() != parent_pid:
        os._exit(EX_LEFT_WORK)  # where the kernel does not kill orphans
    return signals.take()


def wait_until(condition: Callable[[], bool], signals: SignalPipe, row: ChildRow, parent_pid: int) -> list[int]:
    """Wait until a condition is true, or for a signal; return the signals that came."""
    received: list[int] = []
    while not received and not condition():
        received = wait(signals, row, POLL_LEASES_S, parent_pid)
    return received


def make_worker(assignment: Assignment, broker: Broker) -> dramatiq.Worker:
    """Return Dramatiq's worker of a child, not started; ``ValueError`` without a lane: it would consume all."""
    if not assignment.lanes:
        raise ValueError(f"pool {assignment.pool.name}: it serves no lane; name its queues in the topology")
    restart_soon()
    slots = assignment.slots
    worker = dramatiq.Worker(broker, queues=set(assignment.lanes), worker_threads=slots, worker_timeout=POLL_STOP_MS)
    worker.queue_prefetch = 1 if assignment.isolated else assignment.pool.prefetch or 2 * slots
    return worker


def restart_soon() -> None:
    """Shorten the pause where a replica takes over from a master that is down; elsewhere Dramatiq's remains."""
    url = switchyard_settings().broker_url
    addon = addon_for(url.partition("://")[0])
    if is_sentinel_url(url) or (addon is not None and addon.fails_over):
        pause_s = min(dramatiq.worker.CONSUMER_RESTART_DELAY_SECS, FAILOVER_PAUSE_S)
        dramatiq.worker.CONSUMER_RESTART_DELAY_SECS = pause_s


def all_work(worker: dramatiq.Worker) -> bool:
    """Return whether every thread of a worker is alive. A thread that ended by an exception would waste its slot."""
    threads = [*worker.workers, *worker.consumers.values(), *filter(None, [get_event_loop_thread()])]
    ended = [thread.name for thread in threads if not thread.is_alive()]
    if ended:
        logger.error("%s ended by an exception; this child drains, to be started again", ", ".join(ended))
    return not ended


def drain(worker: dramatiq.Worker, hygiene: ChildHygiene, grace_s: float) -> int:
    """Stop fetching, release unstarted messages, let the others end within the grace; return the exit code.

    In a child whose successor already works, only their own limits apply to the tasks, until the pool drains, unless it
    can open nothing: they may wait for a server that they never reach. Where a thread keeps a transaction open, tasks
    in statements that may wait for its end do not hold that up.
    """
    put_clocks_back()
    row = hygiene.row
    deadline = math.inf if row.retired else time.monotonic() + grace_s
    worker.broker.drain()  # type: ignore[attr-defined]
    for thread in worker.workers:
        thread.stop()
    worker.work_queue.end()  # type: ignore[attr-defined]
    worker.broker.emit_before("worker_shutdown", worker)  # after it no task starts that would miss the notice
    for thread in worker.workers:
        while thread.is_alive() and (left_s := deadline - time.monotonic()) > 0:
            release_unstarted(worker)
            row.beat()
            hygiene.check()
            if row.ill:
                deadline = min(deadline, time.monotonic() + grace_s)
            if hygiene.only_sql_runs():
                deadline = 0.0
            thread.join(min(BEAT_S, left_s))
            if hygiene.signals.take():
                deadline = min(deadline, time.monotonic() + grace_s)
                shutdown_notices(worker.broker).notify()
    if left := len(hygiene.slots.running):
        logger.warning(
            "%d tasks did not end within the grace period; their messages go back when this process ends", left
        )
    worker.broker.emit_after("worker_shutdown", worker)
    with contextlib.suppress(BrokerUnavailable):  # then the supervisor requeues what is not recorded as finished
        facilities(worker.broker).barrier.flush()
    return EX_LEFT_WORK if left else 0


def shutdown_notices(broker: Broker) -> ShutdownNotices:
    """Return the middleware that interrupts tasks when their worker stops."""
    [notices] = (entry for entry in broker.middleware if isinstance(entry, ShutdownNotices))
    return notices


def release_all(worker: dramatiq.Worker, message: MessageProxy) -> None:
    """Release the messages that wait for a thread, and then the given one, to the heads of their lanes."""
    release_unstarted(worker)
    release = worker.consumers[message.queue_name].requeue_messages
    with contextlib.suppress(ConnectionClosed):
        wait_for_broker.retry_until_available(message, "release", release, [message])
    message.moved = True  # type: ignore[attr-defined]


def release_unstarted(worker: dramatiq.Worker) -> None:
    """Release messages that wait for a thread to the heads of their lanes; without an answer they wait on."""
    unstarted: dict[str, list[Any]] = {}
    with contextlib.suppress(Empty):
        while True:
            item: Any = worker.work_queue.get_nowait()
            unstarted.setdefault(item.message.queue_name, []).append(item)
    for lane, items in unstarted.items():
        items.sort(key=lambda item: int(item.message.lease.token))
        try:
            worker.consumers[lane].requeue_messages([item.message for item in items])
        except ConnectionClosed:
            for item in items:  # nothing else would start or release them
                worker.work_queue.put(item)


def pin(pool: Pool) -> None:
    """Pin this process, and the threads and processes it starts later, to those of a pool's CPUs that are there."""
    if cpus := (usable_cpus() or frozenset()).intersection(pool.cpus):
        os.sched_setaffinity(0, cpus)


def start_child(assignment: Assignment, table: ChildTable, *, close_inherited: Iterable[Callable[[], None]]) -> int:
    """Start a child, in which ``close_inherited`` closes what belongs to the supervisor alone; return its pid."""
    supervisor_pid = os.getpid()

    def run() -> int:
        pin(assignment.pool)  # before anything else: threads and executed programs inherit it
        # An isolated child runs one message at a time: it needs no greenlets, and is forked for a quick start.
        if assignment.pool.kind == "gevent":
            if is_patched():
                become_child(dramatiq.get_broker(), assignment.slots)
            elif not assignment.isolated:
                execute_patched(assignment.to_fields(), table)
        return serve(assignment, table.rows[assignment.index - 1], parent_pid=supervisor_pid)

    return fork(run, title=assignment.title, close_inherited=close_inherited)


def execute(module: str, arguments: Iterable[str]) -> NoReturn:
    """Replace this process by a module of the project, run anew with arguments."""
    os.execve(  # noqa: S606  our own interpreter and module
        sys.executable,
        [sys.executable, "-m", module, *arguments],
        {**os.environ, "PYTHONPATH": import_path(), "SWITCHYARD_RELEASE": switchyard_settings().release},
    )


def execute_patched(role: Mapping[str, Any], table: ChildTable) -> NoReturn:
    """Replace this process by one that is patched for greenlets first, with a row of a table: a child, or a parent."""
    os.set_inheritable(table.fd, True)
    arguments = [json.dumps(role), str(table.fd), str(len(table.rows)), str(table.slots)]
    execute("switchyard.workers.gevent_main", arguments)


def become_child(broker: Broker, slots: int) -> None:
    """Set up a process for greenlets, with a resolver thread for each slot: a name may never resolve."""
    import gevent
    from gevent import monkey

    # The parents leave these modules unpatched: they wait for processes and have no threads. Tasks may need both.
    monkey.patch_os()
    monkey.patch_signal()
    gevent.config.resolver = "thread"
    hub = gevent.get_hub()
    # A greenlet that a task left must not end the process by a ``sys.exit()``.
    hub.SYSTEM_ERROR = (SystemError,)
    del hub.resolver
    hub.threadpool.maxsize = max(10, slots)  # gevent's default
    asyncio.set_event_loop_policy(LoopsElsewhere(hub))
    drop_event_loop(broker)


class LoopsElsewhere(asyncio.DefaultEventLoopPolicy):
    """Policy that refuses an event loop in a hub's thread: its greenlets would have no other loop, and no database."""

    def __init__(self, hub: Any) -> None:
        super().__init__()
        self._hub = hub

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new loop in another thread; ``PermanentFailure`` in that of the greenlets."""
        import gevent

        if gevent.get_hub() is self._hub:
            raise PermanentFailure(
                "this pool is of kind gevent, and an event loop (asyncio.run, async_to_sync) would run its other jobs "
                "too; write gevent.get_hub().threadpool.apply(asyncio.run, (main(),)), or send the actor to a queue of "
                "a pool of threads"
            )
        return super().new_event_loop()


def drop_event_loop(broker: Broker) -> None:
    """Remove asyncio from a broker: greenlets share one thread, and Django refuses its database where a loop runs."""
    broker.middleware = [entry for entry in broker.middleware if not isinstance(entry, AsyncIO)]
