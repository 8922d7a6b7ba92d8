"""Acknowledgements of one owner: collected from all threads, sent in batches, kept while the server is away."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable

import redis

from broker.errors import BrokerUnavailable
from broker.family import AT_ONCE, Family, Lease

logger = logging.getLogger("switchyard.broker")

SENT_AT_ONCE = AT_ONCE // 2


class Acks:
    """What an owner has worked off and the server does not know yet. It outlives the owner's consumers.

    Args:
        first: Called before any are sent: writes what must be known before the message is forgotten.
    """

    def __init__(self, family: Family, owner: str, *, first: Callable[[], None]) -> None:
        self._first = first
        self._family = family
        self._owner = owner
        self._waiting: deque[Lease] = deque()
        self._sending = threading.Lock()

    def add(self, lease: Lease) -> None:
        """Note a message that was worked off."""
        self._waiting.append(lease)

    def take(self) -> list[Lease]:
        """Return some, for a caller that sends them along with something else, or gives them back.

        Raises:
            BrokerUnavailable: what must be known first could not be written; all are kept.
        """
        taken: list[Lease] = []
        while self._waiting and len(taken) < SENT_AT_ONCE:
            try:
                taken.append(self._waiting.popleft())
            except IndexError:  # another thread was quicker
                break
        if taken:
            try:
                self._first()
            except BaseException:
                self.give_back(taken)
                raise
        return taken

    def give_back(self, leases: list[Lease]) -> None:
        """Keep them for later: nobody knows whether the server got them, and sending them twice does no harm."""
        self._waiting.extendleft(reversed(leases))

    def send(self) -> None:
        """Send all, unless another thread is at it: it sends ours as well. A server that is away gets them later."""
        while self._waiting and self._sending.acquire(blocking=False):
            leases: list[Lease] = []
            try:
                leases = self.take()
                stale = self._family.ack(self._owner, leases)
            except (redis.RedisError, BrokerUnavailable) as error:
                self.give_back(leases)
                logger.warning("%d acknowledgements wait for the broker: %s", len(self._waiting), error)
                return
            except BaseException:
                self.give_back(leases)
                raise
            finally:
                self._sending.release()
            tell_stale(stale)

    def release_unknown(self, known: Iterable[Lease]) -> None:
        """Give back to the lane what is in the owner's name, but neither known to it nor worked off.

        The answer to its fetch got lost, or nobody started it.
        """
        with self._sending:
            ours = {*known, *self._waiting}
            unknown = [lease for lease in self._family.held(self._owner) if lease not in ours]
            self._family.release(self._owner, sorted(unknown, key=lambda lease: int(lease.token)))


def tell_stale(leases: Iterable[Lease]) -> None:
    """Log messages that were worked off by somebody who had lost them."""
    for lease in leases:
        logger.warning(
            "stale token: message %s was lost to another worker meanwhile, its end here does not count",
            str(lease.id, "utf-8"),
        )
