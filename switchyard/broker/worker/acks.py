"""Acknowledgements of one owner: collected from all threads, sent in batches, kept while the server is away."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable

from switchyard.broker.errors import BrokerError
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.queue.results import AT_ONCE, Lease
from switchyard.broker.worker.ack_barrier import AckBarrier

logger = logging.getLogger("switchyard.broker")

SENT_AT_ONCE = AT_ONCE // 2
# The acknowledging thread flushes for fewer than this. More come from short tasks, and the background flushes at once.
MANY = 16


def report_stale(leases: Iterable[Lease]) -> None:
    """Log messages that ended after their lease was lost."""
    for lease in leases:
        logger.warning(
            "stale token: message %s was lost to another worker meanwhile, its end here does not count",
            str(lease.id, "utf-8"),
        )


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
        stale: Callable[[Iterable[Lease]], None] = report_stale,
    ) -> None:
        self._barrier = barrier
        self.report_stale = stale
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
            self.report_stale(stale)

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
