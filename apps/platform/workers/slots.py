"""The table that a supervisor shares with its children, and the middleware with which a child fills in its row.

A row costs a message about a microsecond and needs nothing of the child when it is read: a child that hangs still shows
what it was doing.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

ROW_CELLS = 16  # 64-bit cells; more than are used, so that a row can grow where it stands
CELL_BYTES = 8
READY, BEAT, TAKEN, DONE, BUSY = range(5)


@dataclass(frozen=True, slots=True)
class ChildState:
    """What a child's row says.

    Args:
        ready: Its worker consumes.
        beat_ns: Monotonic time of its last sign of life; 0 before the first.
        taken: Messages it started; ``done``: ended, well or not; ``busy``: running now.
    """

    ready: bool
    beat_ns: int
    taken: int
    done: int
    busy: int


class Row:
    """One child's cells. Written by the child alone, cleared by the supervisor while there is no child."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells

    def read(self) -> ChildState:
        """Return what the child wrote last."""
        cells = self._cells
        return ChildState(bool(cells[READY]), cells[BEAT], cells[TAKEN], cells[DONE], cells[BUSY])

    def clear(self) -> None:
        """Forget the child before."""
        for cell in range(ROW_CELLS):
            self._cells[cell] = 0

    def beat(self) -> None:
        """Give a sign of life."""
        self._cells[BEAT] = time.monotonic_ns()

    def set_ready(self) -> None:
        """Say that work can come."""
        self._cells[READY] = 1

    def started(self) -> None:
        """Count a message that starts. Callers hold a lock."""
        self._cells[TAKEN] += 1
        self._cells[BUSY] += 1

    def ended(self) -> None:
        """Count a message that ended. Callers hold a lock."""
        self._cells[DONE] += 1
        self._cells[BUSY] -= 1


class Table:
    """Rows in memory that is shared by fork, and by exec through its file descriptor.

    Args:
        fd: Of an anonymous file that holds the rows; owned by the table.
    """

    def __init__(self, fd: int, rows: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, rows * ROW_CELLS * CELL_BYTES)
        self._cells = memoryview(self._map).cast("q")
        self.rows = tuple(Row(self._cells[row * ROW_CELLS : (row + 1) * ROW_CELLS]) for row in range(rows))

    @classmethod
    def create(cls, rows: int) -> Table:
        """Return an empty table. Its descriptor is not inherited by exec unless asked."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("switchyard-slots")
        else:
            with tempfile.TemporaryFile() as unnamed:
                fd = os.dup(unnamed.fileno())
        os.ftruncate(fd, rows * ROW_CELLS * CELL_BYTES)
        return cls(fd, rows)


class Slots(Middleware):
    """Count what a child takes, runs and ends, in its row of the shared table.

    Must be the first middleware of the broker: an attempt that another one skips is counted then, too.
    """

    def __init__(self, row: Row) -> None:
        self._row = row
        self._lock = threading.Lock()
        self._running: dict[int, MessageProxy] = {}

    @property
    def running(self) -> list[MessageProxy]:
        """Messages that run now."""
        with self._lock:
            return list(self._running.values())

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Mark a slot busy."""
        with self._lock:
            self._running[threading.get_ident()] = message
            self._row.started()

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Free the slot."""
        with self._lock:
            if self._running.pop(threading.get_ident(), None) is not None:
                self._row.ended()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Free the slot of a message that a middleware did not let run."""
        self.after_process_message(broker, message)


def install(broker: Broker, row: Row) -> Slots:
    """Put :class:`Slots` in front of a broker's middleware and return it."""
    slots = Slots(row)
    if broker.middleware:
        broker.add_middleware(slots, before=type(broker.middleware[0]))
    else:
        broker.add_middleware(slots)
    return slots
