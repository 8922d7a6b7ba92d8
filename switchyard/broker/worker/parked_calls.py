"""Adoption of parked messages: a worker that knows their call leases them before they are due."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from switchyard.broker.errors import BrokerError
from switchyard.broker.keys.queue_keys import Lane
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.queue.results import AT_ONCE, Fetched
from switchyard.broker.queue.unroutable import UnroutableLane

logger = logging.getLogger("switchyard.broker")

FIND_ADOPTABLE_S = 2.0


class ParkedCalls:
    """Calls with parked messages in one lane that this process knows, listed every 2 s.

    Args:
        knows: Returns whether an actor of this process accepts a call.
    """

    def __init__(self, family: QueueOperations, lane: Lane, owner: str, *, knows: Callable[[str], bool]) -> None:
        self._lane = UnroutableLane(family, lane)
        self._owner = owner
        self._knows = knows
        self._find_at_s = 0.0
        self.calls: list[str] = []

    def find(self) -> bool:
        """List the calls anew if 2 s have passed; return whether it was done and found any.

        A server that is away is logged, and the list stays empty until the next time.
        """
        if time.monotonic() < self._find_at_s:
            return False
        self._find_at_s = time.monotonic() + FIND_ADOPTABLE_S
        self.calls = []
        try:
            known = [call for call in self._lane.calls() if self._knows(call)]
            for call in known:
                self._lane.adopt(self._owner, call, ())  # reports that a worker knows it, before there is credit
        except BrokerError as error:
            logger.warning("%s: unroutable messages cannot be listed now: %s", self._lane.name, error)
            return False
        self.calls = known
        return bool(known)

    def lease(self, count: int, *, ours: Collection[str]) -> Fetched:
        """Lease up to ``count`` messages of the first call; drop the call from the list when there were fewer.

        Args:
            ours: Ids of messages that this process has already.
        """
        found = self._lane.ids(self.calls[0], min(count + len(ours), AT_ONCE))
        ids = [id_ for id_ in found if str(id_, "utf-8", "replace") not in ours][:count]
        adopted = self._lane.adopt(self._owner, self.calls[0], ids)
        if len(adopted.grants) < count:
            self.calls.pop(0)
        return adopted
