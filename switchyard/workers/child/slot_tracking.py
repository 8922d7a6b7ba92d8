"""Middleware that writes a child's row of the shared table."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.broker.held_message import HeldMessage
from switchyard.broker.topology import Yard
from switchyard.broker.yard_broker import YardBroker
from switchyard.middleware.outcomes import Outcome, decide
from switchyard.workers.shared.child_table import ChildRow

POLL_LEASES_S = 0.05

logger = logging.getLogger("switchyard.workers")


class SlotTracking(Middleware):
    """Middleware that writes the messages which a child takes, runs and finishes into its row.

    It must be the first middleware of the broker: a message that another middleware refuses was taken as well. A slot
    stays busy until its message is acknowledged: a child that dies before has not finished it.

    A lapse suspect ends a child that is ``quiet_for_suspects``: one that runs beside others leaves it to them.
    """

    def __init__(
        self, broker: YardBroker, row: ChildRow, yard: Yard, lanes: Sequence[str], *, quiet_for_suspects: bool = False
    ) -> None:
        self._broker = broker
        self._row = row
        self._lanes = {lane: (at, yard.queue_of(lane).hard_limit_ms * 1_000_000) for at, lane in enumerate(lanes)}
        self._waiting = False
        self._quiet_for_suspects = quiet_for_suspects
        # Releases the prefetched messages of the child, and then the given one.
        self.release: Callable[[MessageProxy], None] = lambda message: None
        self.ran: set[str] = set()  # names of the actors that started since a reader has put another set here

    @property
    def running(self) -> list[HeldMessage]:
        """Unfinished messages, the one with the highest token last."""
        held = [message for message in list(self._broker.in_flight.values()) if message.slot is not None]
        return sorted(held, key=lambda message: int(message.lease.token))

    def is_to_stop(self, message_id: str) -> bool:
        """Return whether the supervisor requested that a running message stops."""
        message = self._broker.in_flight.get(message_id)
        return message is not None and message.slot is not None and self._row.is_to_stop(message.slot)

    @contextlib.contextmanager
    def without_limit(self, job_id: str) -> Iterator[None]:
        """Suspend a job's hard limit for the block, such as a wait for the broker; it restarts afterwards."""
        message = self._broker.in_flight.get(job_id)
        if message is None or (slot := message.slot) is None:
            yield
            return
        limit_ns = self._row.stop_clock(slot)
        try:
            yield
        finally:
            if limit_ns and message.slot is not None:
                self._row.start_clock(slot, limit_ns)

    # The broker hands out held messages, and no others.

    def before_process_message(self, broker: Broker, message: HeldMessage) -> None:  # type: ignore[override]
        """Occupy a slot, once the message's lease is certainly valid: the supervisor may not have reached the server.

        Raises:
            SkipMessage: the child drained before, and leaves the message to its supervisor; or it is quiet, and the
                message was released.
        """
        if message.lapses is not None and self._quiet_for_suspects:
            self._row.quiet = True
        lease, (lane, limit_ns) = message.lease, self._lanes[message.queue_name]
        while (slot := self._row.start(lane, lease.id, lease.token, limit_ns)) is None:
            if self._row.quiet:
                self.release(message)
                decide(message, Outcome("deferred", "quiet"))
                raise SkipMessage("its child starts nothing while a suspect runs alone")
            if not self._leased_again(broker):
                message.moved = True
                decide(message, Outcome("deferred", "lease"))
                raise SkipMessage("its lease may have expired")
        message.slot = slot
        self.ran.add(message.actor_name)

    def before_send_acks(self, broker: Broker, message: HeldMessage) -> None:
        """Stop the hard limit of a finished message: its thread may have to wait for the server."""
        if message.slot is not None:
            self._row.stop_clock(message.slot)

    def after_ack(self, broker: Broker, message: HeldMessage) -> None:  # type: ignore[override]
        """Record a message as finished, unless it was moved. Its acknowledgement may not have arrived yet."""
        if (slot := message.slot) is not None:
            message.slot = None
            self._row.end(slot, worked_off=not message.moved)

    # The same for a message that becomes a dead letter.
    before_nack = before_send_acks  # type: ignore[assignment]
    after_nack = after_ack  # type: ignore[assignment]

    def _leased_again(self, broker: Broker) -> bool:
        """Wait until the leases are certainly valid; return ``False`` when the child drains before."""
        if not self._waiting:
            self._waiting = True
            logger.warning("no message is started: the leases were not renewed in time, other owners may have them")
        while not self._row.leased and not self._row.quiet:
            if getattr(broker, "draining", False):
                return False
            time.sleep(POLL_LEASES_S)
        self._waiting = False
        return True


M = TypeVar("M", bound=Middleware)


def install(broker: Broker, middleware: M) -> M:
    """Put a middleware in front of a broker's others and return it."""
    broker.add_middleware(middleware, before=type(broker.middleware[0]) if broker.middleware else None)
    return middleware


CHECK_EVERY_S = 1.0


class StuckMessages:
    """Watch over the messages that a child holds.

    One that nothing runs for as long as its queue's hard limit is logged, and the child replaced, which returns the
    message to its lane. No such case is known; each would be a defect here or in Dramatiq. ``queued`` returns the
    messages that wait for a thread.
    """

    def __init__(self, broker: YardBroker, row: ChildRow, yard: Yard, *, queued: Callable[[], list[Any]]) -> None:
        self._broker, self._row, self._yard = broker, row, yard
        self._queued = queued
        self._since_s: dict[bytes, float] = {}
        self._check_at_s = 0.0

    def check(self) -> None:
        """Look for such messages if a second has passed."""
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
            if held_s * 1000 > self._yard.queue_of(message.queue_name).hard_limit_ms and not self._row.stuck:
                logger.error(
                    "no thread runs message %s of %s, which this child holds for %.0f s, longer than its hard limit; "
                    "the child is replaced, and the message returned to its queue",
                    message.message_id, message.queue_name, held_s,
                )  # fmt: skip
                self._row.stuck = True
