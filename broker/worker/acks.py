"""Acknowledgements of one owner: collected from all threads, sent in batches, kept while the server is away."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable

from broker.errors import BrokerError
from broker.queue.operations import AT_ONCE, QueueOperations
from broker.queue.results import Lease
from broker.worker.ack_barrier import AckBarrier

logger = logging.getLogger("switchyard.broker")

SENT_AT_ONCE = AT_ONCE // 2
# Records of fewer are written by whoever acknowledges. More come from short tasks: the background writes them at once.
MANY = 16


def report_stale(leases: Iterable[Lease]) -> None:
    """Log messages that were worked off by somebody who had lost them."""
    for lease in leases:
        logger.warning(
            "stale token: message %s was lost to another worker meanwhile, its end here does not count",
            str(lease.id, "utf-8"),
        )


class Acks:
    """What an owner has worked off and the server does not know yet. It outlives the owner's consumers.

    Args:
        barrier: Flushed before the server forgets a message.
        stale: Told of what was lost to another owner before it was acknowledged.
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
        # With each, what of the records must be written first.
        self._waiting: deque[tuple[int, Lease]] = deque()
        self._sending = threading.Lock()

    @property
    def some(self) -> bool:
        """Whether there are any."""
        return bool(self._waiting)

    def add(self, lease: Lease) -> None:
        """Note a message that was worked off."""
        self._waiting.append((self._barrier.noted if self._barrier else 0, lease))

    def take(self) -> list[Lease]:
        """Return some, for a caller that sends them along with something else, or gives them back.

        Of many, only those whose records the background has written: the caller's next fetch does not wait for that.

        Raises:
            BrokerUnavailable: the records could not be written; all are kept.
        """
        if self._barrier and self._waiting and (len(self._waiting) < MANY or not self._barrier.in_background):
            self._barrier.flush()
        return self._written()

    def give_back(self, leases: list[Lease]) -> None:
        """Keep them for later: nobody knows whether the server got them, and sending them twice does no harm."""
        self._waiting.extendleft((0, lease) for lease in reversed(leases))

    def send(self) -> None:
        """Send all, unless another thread is at it: it sends ours as well. A server that is away gets them later."""
        while self._waiting and self._sending.acquire(blocking=False):
            leases: list[Lease] = []
            try:
                if self._barrier:
                    self._barrier.flush()
                leases = self._written()
                stale = self._family.ack(self._owner, leases)
            except BrokerError as error:
                self.give_back(leases)
                logger.warning("%d acknowledgements wait for the broker: %s", len(self._waiting), error)
                return
            except BaseException:
                self.give_back(leases)
                raise
            finally:
                self._sending.release()
            self.report_stale(stale)

    def _written(self) -> list[Lease]:
        written = self._barrier.written if self._barrier else 0
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
        """Give back to the lane what is in the owner's name, but neither known to it nor worked off.

        The answer to its fetch got lost, or nobody started it.
        """
        with self._sending:
            ours = {*known, *(lease for _, lease in list(self._waiting))}  # others append meanwhile
            unknown = [lease for lease in self._family.held(self._owner) if lease not in ours]
            self._family.release(self._owner, sorted(unknown, key=lambda lease: int(lease.token)))
