"""Middleware of a child: its row of the shared table, and its memory limit."""

import contextlib
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.broker.held_message import HeldMessage
from switchyard.broker.topology import Yard
from switchyard.broker.yard_broker import YardBroker
from switchyard.middleware.outcomes import Outcome, decide
from switchyard.workers.shared.child_table import ChildRow
from switchyard.workers.shared.fork import PAGE_BYTES, peak_bytes, resident_bytes

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


# Memory that the rest of the process may take while a message runs: two of the arenas that Python allocates.
REST_BYTES: Final = 2 * 1_048_576


class MemoryGuard(Middleware):
    """Middleware that refuses messages which may exceed the child's memory limit; the supervisor replaces the child.

    The guard keeps as much free as one message of this child has used at most, beside its neighbours, and 2 MiB for
    what fetches and records. The first message always starts, in a child that is not over its limit before.

    It must come before :class:`switchyard.workers.child.slot_tracking.SlotTracking`: a message that is refused here
    takes no slot. ``release`` releases the prefetched messages of this child, and then the given one.
    """

    def __init__(self, row: ChildRow, limit_bytes: int, *, release: Callable[[MessageProxy], None]) -> None:
        self._row = row
        self._limit_bytes = limit_bytes
        self._release = release
        self._measure = memory_meter()
        self._allocated_bytes: int | None = None
        self._growth_bytes = 0
        self._begun = False

    @property
    def over_limit(self) -> bool:
        """Whether the resident memory is over the limit, for which the supervisor kills the child."""
        resident, _ = self._measure()
        return resident > self._limit_bytes

    def limit_allocations(self) -> None:
        """Make allocations beyond the limit raise ``MemoryError``, where the process would be killed.

        For a child that runs one message at a time, after its threads have started. What is allocated now and not
        resident stays allowed.
        """
        resident, allocated = self._measure()
        limit_bytes = allocated + max(self._limit_bytes - resident, 0)
        _, highest = resource.getrlimit(resource.RLIMIT_DATA)
        if highest == resource.RLIM_INFINITY or highest > limit_bytes:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, highest))
        self._allocated_bytes = limit_bytes

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Let a message start if enough memory is free; else release it."""
        resident, size = self._used()
        if self._row.full or (self._begun and not self._fits(size)):
            self._close(broker, size)
            self._release(message)
            decide(message, Outcome("deferred", "memory"))
            raise SkipMessage("too little memory is free in its worker")
        self._begun = True
        message.weighed = size, resident, _peak_bytes()  # type: ignore[attr-defined]

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Record the memory that the message used, and mark the child as full if too little is free for another."""
        weighed = getattr(message, "weighed", None)
        if weighed is None:
            return
        before, resident_before, peak_before = weighed
        (_, size), peak = self._used(), _peak_bytes()
        # A peak that was reached before the message is not its own.
        went_up = peak - resident_before if peak > peak_before else 0
        self._growth_bytes = max(self._growth_bytes, went_up, size - before)
        if not self._row.full and not self._fits(size):
            self._close(broker, size)

    def _fits(self, size: int) -> bool:
        """Return whether one more message may start in a child that uses so many bytes."""
        return size + self._growth_bytes + REST_BYTES <= self._limit_bytes

    def _used(self) -> tuple[int, int]:
        """Return the resident bytes, and those that are used of the limit."""
        resident, allocated = self._measure()
        if self._allocated_bytes is None:
            return resident, resident
        return resident, max(resident, self._limit_bytes - self._allocated_bytes + allocated)

    def _close(self, broker: Broker, size: int) -> None:
        if self._row.full:
            return
        self._row.lacks_memory = self._row.full = True  # in this order: the latter wakes who reads both
        broker.drain()  # type: ignore[attr-defined]
        logger.info(
            "child uses %.0f MB, one message used up to %.0f MB: no message starts within the limit of %.0f MB",
            size / 1e6, self._growth_bytes / 1e6, self._limit_bytes / 1e6,
        )  # fmt: skip


def memory_meter() -> Callable[[], tuple[int, int]]:
    """Return a function that returns this process's resident and allocated bytes; the resident twice but on Linux."""
    if sys.platform != "linux":
        return lambda: (resident_bytes(os.getpid()),) * 2
    statm = os.open("/proc/self/statm", os.O_RDONLY)

    def measure() -> tuple[int, int]:
        pages = os.pread(statm, 100, 0).split()
        return int(pages[1]) * PAGE_BYTES, int(pages[5]) * PAGE_BYTES

    return measure


def _peak_bytes() -> int:
    return peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
