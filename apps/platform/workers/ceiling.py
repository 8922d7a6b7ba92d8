"""Memory of a child: a message starts only if one more fits under the ceiling, as far as those before tell."""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from apps.platform.workers.processes import PAGE_BYTES, peak_bytes, resident_bytes
from apps.platform.workers.table import Row
from middleware.outcomes import Outcome, decide

logger = logging.getLogger("switchyard.workers")


class Ceiling(Middleware):
    """Start nothing that may take the child over its memory limit; say so to the supervisor, who replaces it.

    Nobody knows what a message will take. The most that one took in this child so far, its neighbours' share of that
    time included, is kept free for the next. The first message of a child always starts.

    Must come before :class:`apps.platform.workers.slots.Slots`: what is refused here has taken no slot.

    Args:
        give_back: Returns to its lane what waits in this child, and then the message that is named.
    """

    def __init__(self, row: Row, limit_bytes: int, *, give_back: Callable[[MessageProxy], None]) -> None:
        self._row = row
        self._limit_bytes = limit_bytes
        self._give_back = give_back
        self._weigh = scales()
        self._growth_bytes = 0
        self._begun = False

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Let a message start if there is room.

        Raises:
            SkipMessage: there is none, and it went back.
        """
        size = self._weigh()
        if self._row.full or (self._begun and size + self._growth_bytes > self._limit_bytes):
            self._close(broker, size)
            self._give_back(message)
            decide(message, Outcome("deferred", "memory"))
            raise SkipMessage("its worker has no memory left for it")
        self._begun = True
        message.weighed = size, _peak_bytes()  # type: ignore[attr-defined]

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Note what it took, and look whether there is room for another."""
        weighed = getattr(message, "weighed", None)
        if weighed is None:
            return
        before, peak_before = weighed
        size, peak = self._weigh(), _peak_bytes()
        # A peak that was there before says nothing of this one.
        self._growth_bytes = max(self._growth_bytes, (peak if peak > peak_before else size) - before)
        if not self._row.full and size + self._growth_bytes > self._limit_bytes:
            self._close(broker, size)

    def _close(self, broker: Broker, size: int) -> None:
        if self._row.full:
            return
        self._row.set_full()
        broker.drain()  # type: ignore[attr-defined]
        logger.info(
            "this child holds %.0f MB, and a message took up to %.0f MB: none starts any more under %.0f MB",
            size / 1e6, self._growth_bytes / 1e6, self._limit_bytes / 1e6,
        )  # fmt: skip


def limit_allocations(limit_bytes: int) -> None:
    """Have what this process allocates end in a ``MemoryError``, where a process that grew would be killed.

    The kernel counts what is allocated, and not the files that are mapped; those that are now go off the limit. Memory
    that is only reserved counts as well, such as the stacks of threads: it strikes before the limit.
    """
    _, highest = resource.getrlimit(resource.RLIMIT_DATA)
    allowed_bytes = max(limit_bytes - _mapped_bytes(), 0)
    if highest == resource.RLIM_INFINITY or highest > allowed_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (allowed_bytes, highest))


def scales() -> Callable[[], int]:
    """Return a function that returns this process's resident bytes, in two microseconds where the kernel tells."""
    if sys.platform != "linux":
        return lambda: resident_bytes(os.getpid())
    statm = os.open("/proc/self/statm", os.O_RDONLY)
    return lambda: int(os.pread(statm, 100, 0).split()[1]) * PAGE_BYTES


def _mapped_bytes() -> int:
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_bytes().split()[2]) * PAGE_BYTES


def _peak_bytes() -> int:
    return peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
