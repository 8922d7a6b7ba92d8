"""Memory limit of a child: a message starts only if as much is free as the largest earlier message used."""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Callable
from typing import Any, Final

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.middleware.outcomes import Outcome, decide
from switchyard.workers.shared.child_table import ChildRow
from switchyard.workers.shared.fork import PAGE_BYTES, peak_bytes, resident_bytes

# Memory that the rest of the process may take while a message runs: two of the arenas that Python allocates.
REST_BYTES: Final = 2 * 1_048_576

logger = logging.getLogger("switchyard.workers")


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
