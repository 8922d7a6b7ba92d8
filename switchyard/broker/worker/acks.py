"""Acknowledgements of one owner: sent in batches, after a flush, so that nothing of a message is unwritten."""

import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol

from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.queue.operations import AT_ONCE, NO_ROW, HistoryRow, Lease, QueueOperations
from switchyard.broker.stores.history_streams import ENDED, Step, WorkerPlace, later
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.limit_counts import TaskLock

logger = logging.getLogger("switchyard.broker")

LAG_S = 0.005
# A start is written when its attempt has taken so long: most end sooner, and cost one write instead of two.
START_LAG_S = 0.025
AWAY_PAUSE_S = 1.0
ENDS_ATTEMPT = {*ENDED, "retrying"}
WRITTEN_AT_ONCE = 200
LOCKS_S = 1.0


class MetricsFlush(Protocol):
    """Values observed in this process that are not in the metrics' files yet."""

    def fold(self) -> None: ...


class FinishedMessages(Protocol):
    """Memory, shared with the supervisor, of the messages that this process has finished."""

    def last_end(self) -> int:
        """Return the number of the last end that was noted."""

    def confirm_flush(self, last_end: int) -> None:
        """Note that everything is written of the messages up to that end."""


class AckBarrier:
    """Collects steps of jobs from all threads of a process, and flushes all participants before acknowledgements.

    A process that runs messages calls :meth:`start`, so that steps are also written while nothing is acknowledged.

    Attributes:
        metrics: First participant, where there are metrics.
        finished: Last participant, in a pool's child.
        worker_place: Where jobs of this process run, for their records.
        row_of: Returns the row of a held message whose attempt ends with a move.
        begun: Number of the last flush that has begun. It writes all that was noted before it began.
        written: Number of the last flush of all queues that has ended.
        locks: Locks of the tasks that run in this process, by their ``id()``; the background renews them. One that its
            task has dropped without a release, as by an interrupt between two lines, is renewed no more.
    """

    def __init__(self, records: JobRecords) -> None:
        self.metrics: MetricsFlush | None = None
        self.finished: FinishedMessages | None = None
        self.worker_place = WorkerPlace()
        self.row_of: Callable[[Any], HistoryRow] = lambda held: NO_ROW
        self.begun = 0
        self.written = 0
        self.locks: weakref.WeakValueDictionary[int, TaskLock] = weakref.WeakValueDictionary()
        self._records = records
        # Every thread adds to these two without a lock; the steps are of the thread that holds ``_writing``.
        self._added: deque[Step] = deque()
        self._started: dict[str, tuple[float, Callable[[Any], Step], Any]] = {}
        self._steps: dict[str, Step] = {}
        self._beginning = threading.Lock()
        self._writing = threading.Lock()
        self._some = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def in_background(self) -> bool:
        """Whether a thread writes what is noted, without a call of :meth:`flush`."""
        return self._thread is not None

    def wake(self) -> None:
        """Flush soon in the background, where there is one."""
        if self._thread is not None and not self._some.is_set():
            self._some.set()

    def begin(self, message: Any, make: Callable[[Any], Step]) -> None:
        """Note the start of an attempt; ``make(message)`` is called only if it is written before the attempt has ended.

        The step that ends the attempt must say all that its start says.
        """
        self._started[message.message_id] = time.monotonic(), make, message
        self.wake()

    def add(self, step: Step) -> None:
        """Note a step, to be written soon."""
        if step.state in ENDS_ATTEMPT:  # and not the sender's own news, which may come after the start
            self._started.pop(step.job_id, None)
        self._added.append(step)
        self.wake()

    @property
    def pending(self) -> bool:
        """Whether a step was noted that is not written."""
        return bool(self._added or self._steps or self._started)

    def written_of(self, queue: str) -> int:
        """Return the number of the last flush that has written all of a queue."""
        return self.written

    def flush(self, *, with_starts: bool = True, queue: str = "") -> None:
        """Write everything that was noted before this call. After ``BrokerUnavailable`` the steps are kept.

        Args:
            with_starts: Also of attempts that began just now; no acknowledgement waits for those.
            queue: The only one that matters: where others may be at a place that is away, it is written alone.
        """
        last_end = self.finished.last_end() if self.finished is not None else 0
        with self._beginning:
            number = self.begun = self.begun + 1
        self._write_metrics()
        began_before_s = math.inf if with_starts else time.monotonic() - START_LAG_S
        if not self._write(began_before_s, number, queue):
            return
        with self._beginning:
            self.written = max(self.written, number)
        if self.finished is not None:
            self.finished.confirm_flush(last_end)

    def _write_metrics(self) -> None:
        if self.metrics is None:
            return
        try:
            self.metrics.fold()
        except Exception:
            logger.critical("metrics cannot be written, some values are lost; no acknowledgement waits", exc_info=True)

    def _write(self, began_before_s: float, number: int, queue: str) -> bool:
        """Write the steps that were noted; return whether those of all queues are written."""
        with self._writing:  # also waits for steps that another thread is writing, and may have to put back
            # No more than there are now: where others note without a pause, the buffer is never empty.
            left = self._gather(began_before_s)
            while left > 0:
                left -= self._write_some()
        return True

    def start(self) -> None:
        """Write in the background from now on, in this process."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._write_soon, name="switchyard-records", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the background, and write what is left.

        Without an answer of the server these messages are not acknowledged either, and run again, unless a later flush
        of the process succeeds.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            self._some.set()
            thread.join()
        try:
            self.flush()
        except BrokerUnavailable as error:
            fact = "job records are not written at the end of the worker, jobs that ended may run again"
            logger.warning("%s: %s", fact, error)

    def _gather(self, began_before_s: float) -> int:
        """Gather the steps that were added, and those of attempts that began before a time; return how many there are.

        A time limit may arrive at any line: a step leaves one place after it is in the next.
        """
        for job_id, start in self._started.copy().items():
            began_s, make, message = start
            if began_s > began_before_s:
                continue
            if (begun := _made(message, make)) is not None:
                self._steps[job_id] = later(self._steps.get(job_id), begun)
            if self._started.get(job_id) is start:  # and not that of the next attempt
                self._started.pop(job_id, None)
        for _ in range(len(self._added)):
            step = self._added[0]
            self._steps[step.job_id] = later(self._steps.get(step.job_id), step)
            self._added.popleft()
        return len(self._steps)

    def _write_some(self) -> int:
        taken = list(islice(self._steps.values(), WRITTEN_AT_ONCE))
        self._records.write(taken)
        for step in taken:  # after it: a write that fails, or that a time limit interrupts, is repeated
            self._steps.pop(step.job_id, None)
        return len(taken)

    def _keep_locks(self) -> None:
        try:
            for found in self.locks.valuerefs():  # a copy: other threads acquire meanwhile
                if (lock := found()) is not None:
                    lock.keep()
        except BrokerUnavailable as error:
            logger.warning("locks of tasks are not renewed: %s", error)

    def _write_soon(self) -> None:
        while not self._stopping.is_set():
            self._some.wait(LOCKS_S if self.locks else None)
            self._some.clear()
            self._stopping.wait(LAG_S)
            try:
                self._keep_locks()
                self.flush(with_starts=False)
                if self._started:
                    self._some.set()
            except BrokerUnavailable as error:
                logger.warning("%d job records wait for the broker: %s", len(self._steps), error)
                self._stopping.wait(AWAY_PAUSE_S)
                self._some.set()
            except Exception:  # this thread must go on: acknowledgements of many wait for it alone
                logger.critical("%d job records cannot be written now", len(self._steps), exc_info=True)
                self._stopping.wait(AWAY_PAUSE_S)
                self._some.set()


def _made(message: Any, make: Callable[[Any], Step]) -> Step | None:
    try:
        return make(message)
    except Exception:  # what its sender wrote into the message: every other job waits for this call
        logger.exception("job %s is not recorded as started", message.message_id)
        return None


def barrier_over(records: JobRecords) -> AckBarrier:
    """Return the barrier that fits the place, or places, where records are kept."""
    addon = records.calls.addon
    barrier: AckBarrier = ((addon and addon.load("barrier")) or AckBarrier)(records)
    return barrier


def record_enqueued(barrier: AckBarrier | None, count: int, *queues: str) -> None:
    """Write the job records of messages that were enqueued; a server that is away gets them later."""
    if barrier is None or not barrier.pending:
        return
    for queue in queues:
        try:
            barrier.flush(queue=queue)
        except BrokerUnavailable as error:  # the messages are enqueued; their records follow
            logger.warning("%d messages are enqueued, but not recorded yet: %s", count, error)


SENT_AT_ONCE = AT_ONCE // 2
# The acknowledging thread flushes for fewer than this. More come from short tasks, and the background flushes at once.
MANY = 16


class Acks:
    """Finished messages of an owner that the server does not know to be finished. Outlives the owner's consumers.

    ``barrier`` is flushed before the server forgets a message; ``stale`` gets leases that were lost before.
    """

    def __init__(
        self,
        family: QueueOperations,
        owner: str,
        *,
        barrier: AckBarrier | None,
        stale: Callable[[Iterable[Lease]], None] = lambda leases: None,
    ) -> None:
        self._barrier = barrier
        self._report_stale = stale
        self._family = family
        self._owner = owner
        # Each with the number of the flush that must have ended first.
        self._waiting: deque[tuple[int, Lease]] = deque()
        self._sending = threading.Lock()

    @property
    def pending(self) -> bool:
        return bool(self._waiting)

    def add(self, lease: Lease) -> None:
        self._waiting.append((self._barrier.begun + 1 if self._barrier else 0, lease))

    def take_written(self) -> list[Lease]:
        """Return leases to acknowledge, for a caller that sends them with a fetch, or puts them back.

        Where many wait, only those whose records the background has written: the fetch does not wait for a flush. After
        ``BrokerUnavailable`` (records not written) all are kept.
        """
        if self._barrier and self._waiting and (len(self._waiting) < MANY or not self._barrier.in_background):
            self._barrier.flush(with_starts=False, queue=self._family.keys.queue)
        return self._written()

    def put_back(self, leases: list[Lease]) -> None:
        """Keep leases for later. The server may have acknowledged them already; a second time does no harm."""
        self._waiting.extendleft((0, lease) for lease in reversed(leases))

    def send(self) -> None:
        """Send all, unless another thread does so already. While the server is away they are kept."""
        while self._waiting and self._sending.acquire(blocking=False):
            leases: list[Lease] = []
            try:
                if self._barrier:
                    self._barrier.flush(with_starts=False, queue=self._family.keys.queue)
                leases = self._written()
                stale = self._family.ack(self._owner, leases)
            except BrokerError as error:
                self.put_back(leases)
                logger.warning("%d acknowledgements wait for the broker: %s", len(self._waiting), error)
                return
            except BaseException:
                self.put_back(leases)
                raise
            finally:
                self._sending.release()
            self._report_stale(stale)

    def _written(self) -> list[Lease]:
        written = self._barrier.written_of(self._family.keys.queue) if self._barrier else 0
        taken: list[Lease] = []
        while self._waiting and len(taken) < SENT_AT_ONCE:
            try:
                needs, lease = self._waiting.popleft()
            except IndexError:  # another thread was quicker
                break
            if needs > written:
                self._waiting.appendleft((needs, lease))
                break
            taken.append(lease)
        return taken

    def release_unknown(self, known: Iterable[Lease]) -> None:
        """Release what the server holds for the owner and this process neither knows nor has finished.

        The answer to a fetch was lost, or the messages were never started.
        """
        with self._sending:
            ours = {*known, *(lease for _, lease in list(self._waiting))}  # others append meanwhile
            unknown = [lease for lease in self._family.held(self._owner) if lease not in ours]
            self._family.release(self._owner, sorted(unknown, key=lambda lease: int(lease.token)))
