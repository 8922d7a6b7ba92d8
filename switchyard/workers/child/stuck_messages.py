"""Detection of messages that a child holds and that nothing runs: neither a thread nor the queue of its threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from switchyard.broker.supervised_broker import SupervisedBroker
from switchyard.workers.shared.child_table import ChildRow

CHECK_EVERY_S = 1.0

logger = logging.getLogger("switchyard.workers")


class StuckMessages:
    """Watch over the messages that a child holds.

    A message that nothing runs for as long as its queue's hard limit is logged, and its child is marked for
    replacement: when the child has ended, its supervisor returns the message to its lane. Until then the message's
    lease would be renewed and its prefetch credit be missing. No such case is known; each would be a defect here or in
    Dramatiq.

    Args:
        queued: Returns the messages that wait for a thread.
        hard_limit_ms: Returns the hard limit of a lane.
    """

    def __init__(
        self,
        broker: SupervisedBroker,
        row: ChildRow,
        *,
        queued: Callable[[], list[Any]],
        hard_limit_ms: Callable[[str], int],
    ) -> None:
        self._broker = broker
        self._row = row
        self._queued = queued
        self._hard_limit_ms = hard_limit_ms
        self._since_s: dict[bytes, float] = {}
        self._check_at_s = 0.0

    def check(self) -> None:
        """Look for such messages if a second has passed, and mark the child when one is past its hard limit."""
        now_s = time.monotonic()
        if now_s < self._check_at_s:
            return
        self._check_at_s = now_s + CHECK_EVERY_S
        if not self._row.leased:  # threads wait until the leases are certain, without a slot for their messages
            self._since_s.clear()
            return
        held = list(self._broker.in_flight.values())
        queued = set(map(id, self._queued())) if held else set()
        idle = [message for message in held if id(message) not in queued and message.slot is None]
        self._since_s = {message.lease.token: self._since_s.get(message.lease.token, now_s) for message in idle}
        for message in idle:
            held_s = now_s - self._since_s[message.lease.token]
            if held_s * 1000 > self._hard_limit_ms(message.queue_name) and not self._row.stuck:
                logger.error(
                    "no thread runs message %s of %s, which this child holds for %.0f s, longer than its hard limit; "
                    "the child is replaced, and the message returned to its queue",
                    message.message_id, message.queue_name, held_s,
                )  # fmt: skip
                self._row.set_stuck()
