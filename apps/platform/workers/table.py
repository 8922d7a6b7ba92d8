"""The table that a supervisor shares with its children: a row each, with what the child runs and what it finished.

A row needs nothing of the child when it is read: one that hangs, or died, still shows what it was doing. Writing costs
a message about two microseconds.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

CELL_BYTES = 8
HEADER_CELLS = 16  # more than are used, so that a row can grow where it stands
READY, BEAT, LEASED, FINISHED, WRITTEN, PROGRESS, WORKING, FULL, RETIRED, LOGGED = range(10)

# As long as an id may be. What somebody put there with a longer one cannot be told apart, and counts as not running.
ID_BYTES = 200
_RUNNING = struct.Struct(f"<4qH{ID_BYTES}s6xq")  # token, start, limit, lane, length of the id, id, asked
ASKED_AT = CELL_BYTES + 240
SLOT_BYTES = ASKED_AT + 3 * CELL_BYTES
# Cells of a slot: whether it is busy, start and limit of its message, and how many it has started and ended.
BUSY, START, LIMIT, ASKED = 0, 2, 3, ASKED_AT // CELL_BYTES
STARTED, ENDED = ASKED + 1, ASKED + 2
_FINISHED = struct.Struct(f"<2qH{ID_BYTES}s")  # token, lane, length of the id, id
RING = 512
RING_BYTES = 224
LOG_BYTES = 4_096
NO_LIMIT = 0


@dataclass(frozen=True, slots=True)
class ChildState:
    """What a child's row says.

    Args:
        ready: It is up.
        beat_ns: Monotonic time of its last sign of life; 0 before the first.
        taken: Messages it started; ``done``: ended, well or not; ``busy``: running now.
        progress_ns: Monotonic time of the first sign of life after it last started or ended a message.
    """

    ready: bool
    beat_ns: int
    taken: int
    done: int
    busy: int
    progress_ns: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """A message in a slot.

    Args:
        lane: Position of its lane among those that the child serves.
        limit_ns: Time it may take; 0 once its task has ended, or without a limit.
        start_ns: Monotonic.
    """

    lane: int
    id: bytes
    token: int
    start_ns: int
    limit_ns: int

    @property
    def over_at_ns(self) -> int | None:
        """Monotonic time at which its limit is over."""
        return self.start_ns + self.limit_ns if self.limit_ns else None


@dataclass(frozen=True, slots=True)
class Finished:
    """A message that was worked off, acknowledged or not."""

    lane: int
    id: bytes
    token: int


class Row:
    """One child's part. Written by the child, but for what its supervisor says to it, and cleared by the supervisor
    while there is no child.

    Args:
        memory: Of :meth:`Table.row_bytes` bytes.
    """

    def __init__(self, memory: memoryview, slots: int) -> None:
        self._memory = memory
        self._cells = memory.cast("q")
        self._slots = slots
        self._ring_at = (HEADER_CELLS * CELL_BYTES) + slots * SLOT_BYTES
        self._log_at = self._ring_at + RING * RING_BYTES
        self._finished = itertools.count()
        self._started = [0] * slots
        # Where each slot begins, in cells, and its message, in bytes: each start and end of a message needs them.
        self._slot_cells = [self._slot_at(slot) // CELL_BYTES for slot in range(slots)]
        self._messages_at = [self._slot_at(slot) + CELL_BYTES for slot in range(slots)]
        self._moved = 0

    def read(self) -> ChildState:
        """Return what the child wrote last."""
        cells = self._cells
        taken, done = self._counts()
        return ChildState(bool(cells[READY]), cells[BEAT], taken, done, max(taken - done, 0), cells[PROGRESS])

    def clear(self) -> None:
        """Forget the child before."""
        self._memory[:] = bytes(len(self._memory))
        self._started = [0] * self._slots

    def beat(self) -> None:
        """Give a sign of life, and say whether messages were started or ended since the one before."""
        now_ns = self._cells[BEAT] = time.monotonic_ns()
        moved = sum(self._counts())
        if moved != self._moved:
            self._moved, self._cells[PROGRESS] = moved, now_ns

    def progressed(self) -> None:
        """Note that work goes on."""
        self._cells[PROGRESS] = time.monotonic_ns()

    def set_ready(self) -> None:
        """Say that the child is up."""
        self._cells[READY] = 1

    def set_working(self) -> None:
        """Say that it consumes."""
        self._cells[WORKING] = 1

    @property
    def working(self) -> bool:
        """Whether the child consumes."""
        return bool(self._cells[WORKING])

    def lease(self, until_s: float) -> None:
        """Say, as its supervisor, until which monotonic time the child's leases last for sure."""
        self._cells[LEASED] = int(until_s * 1e9)

    @property
    def leased(self) -> bool:
        """Whether the child may fetch and start messages."""
        return self._cells[LEASED] > time.monotonic_ns()

    def set_full(self) -> None:
        """Say that the child starts nothing more, because it has no memory left for it."""
        self._cells[FULL] = 1

    @property
    def full(self) -> bool:
        """Whether the child is to be replaced for want of memory."""
        return bool(self._cells[FULL])

    def retire(self) -> None:
        """Say, as its supervisor, that a successor is there: what the child runs may end in peace."""
        self._cells[RETIRED] = 1

    @property
    def retired(self) -> bool:
        """Whether another child works in this one's stead."""
        return bool(self._cells[RETIRED])

    def log(self, text: str) -> None:
        """Keep what the child logs, the last 4 KiB of it. Not for several threads at once."""
        data = text.encode("utf-8", "backslashreplace")
        # What is cut counts as well: that a line has lost its beginning, where a secret may be named, is to be seen.
        logged, data = self._cells[LOGGED] + max(len(data) - LOG_BYTES, 0), data[-LOG_BYTES:]
        at = logged % LOG_BYTES
        first = data[: LOG_BYTES - at]
        self._memory[self._log_at + at : self._log_at + at + len(first)] = first
        self._memory[self._log_at : self._log_at + len(data) - len(first)] = data[len(first) :]
        self._cells[LOGGED] = logged + len(data)

    def logged(self) -> list[str]:
        """Return the last lines that the child logged, whole ones."""
        logged = self._cells[LOGGED]
        kept = bytes(self._memory[self._log_at : self._log_at + min(logged, LOG_BYTES)])
        if logged > LOG_BYTES:
            _, _, kept = (kept[logged % LOG_BYTES :] + kept[: logged % LOG_BYTES]).partition(b"\n")
        return kept.decode("utf-8", "replace").splitlines()

    def start(self, slot: int, lane: int, id_: bytes, token: int, limit_ns: int) -> None:
        """Put a message that starts into a slot, which is the calling thread's until it is freed."""
        at, now_ns = self._messages_at[slot], time.monotonic_ns()
        _RUNNING.pack_into(self._memory, at, token, now_ns, limit_ns, lane, len(id_), id_, 0)
        cells, at = self._cells, self._slot_cells[slot]
        cells[at] = 1  # last: a slot that is busy is complete
        started = self._started[slot] = self._started[slot] + 1
        cells[at + STARTED] = started

    def stop_clock(self, slot: int) -> None:
        """Let no limit run for a slot's message."""
        self._cells[self._slot_cells[slot] + LIMIT] = NO_LIMIT

    def start_clock(self, slot: int, limit_ns: int) -> None:
        """Let a limit run for a slot's message, from now on."""
        cells, at = self._cells, self._slot_cells[slot]
        cells[at + START] = time.monotonic_ns()
        cells[at + LIMIT] = limit_ns  # last: it is never measured from the first start

    def end(self, slot: int) -> None:
        """Note that a slot's task has ended; its message is still to be acknowledged."""
        cells, at = self._cells, self._slot_cells[slot]
        cells[at + LIMIT] = NO_LIMIT
        cells[at + ENDED] += 1

    def free(self, slot: int) -> None:
        """Empty a slot."""
        self._cells[self._slot_cells[slot]] = 0

    def ask(self, ran: Running) -> None:
        """Say, as its supervisor, that a running message was asked to stop."""
        for slot, at in enumerate(self._slot_cells):
            if self._cells[at] and self._running_in(slot) == ran:
                self._cells[at + ASKED] = ran.token

    def is_asked(self, slot: int) -> bool:
        """Whether the message in a slot was asked to stop."""
        at = self._slot_cells[slot]
        token = self._cells[at + 1]
        return token > 0 and self._cells[at + ASKED] == token

    def finish(self, lane: int, id_: bytes, token: int) -> None:
        """Remember a message that was worked off, until 512 others were."""
        turn = next(self._finished)
        _FINISHED.pack_into(self._memory, self._ring_at + (turn % RING) * RING_BYTES, token, lane, len(id_), id_)
        self._cells[FINISHED] = turn + 1

    def write_finished(self, write: Callable[[], None]) -> None:
        """Write, with ``write``, what is to be known of the finished messages, and note that it is."""
        finished = self._cells[FINISHED]
        write()
        self._cells[WRITTEN] = finished

    def running(self) -> list[Running]:
        """Return what the slots hold.

        One that is filled anew meanwhile may be seen half written: two looks must agree, and it be busy after them.
        """
        found = []
        for slot, at in enumerate(self._slot_cells):
            if self._cells[at + BUSY]:
                ran = self._running_in(slot)
                if ran is not None and ran == self._running_in(slot) and self._cells[at + BUSY]:
                    found.append(ran)
        return found

    def finished(self) -> list[Finished]:
        """Return the messages that were worked off last and of which all is written, up to 512."""
        found = []
        for turn in range(max(self._cells[FINISHED] - RING, 0), self._cells[WRITTEN]):
            token, lane, length, id_ = _FINISHED.unpack_from(self._memory, self._ring_at + (turn % RING) * RING_BYTES)
            if 0 < length <= ID_BYTES:
                found.append(Finished(lane, id_[:length], token))
        return found

    def _running_in(self, slot: int) -> Running | None:
        at = self._messages_at[slot]
        token, start_ns, limit_ns, lane, length, id_, _ = _RUNNING.unpack_from(self._memory, at)
        return Running(lane, id_[:length], token, start_ns, limit_ns) if 0 < length <= ID_BYTES else None

    def _counts(self) -> tuple[int, int]:
        """Return how many messages were started, and how many ended. Each slot counts its own, without a lock."""
        cells = self._cells
        ended = sum(cells[at + ENDED] for at in self._slot_cells)
        return sum(cells[at + STARTED] for at in self._slot_cells), ended

    @staticmethod
    def _slot_at(slot: int) -> int:
        return HEADER_CELLS * CELL_BYTES + slot * SLOT_BYTES


class Table:
    """Rows in memory that is shared by fork, and by exec through its file descriptor.

    Args:
        fd: Of an anonymous file that holds the rows; owned by the table.
        slots: Messages that a row's child runs at once.
    """

    def __init__(self, fd: int, rows: int, slots: int = 0) -> None:
        self.fd = fd
        self.slots = slots
        size = self.row_bytes(slots)
        self._map = mmap.mmap(fd, rows * size)
        memory = memoryview(self._map)
        self.rows = tuple(Row(memory[row * size : (row + 1) * size], slots) for row in range(rows))

    @staticmethod
    def row_bytes(slots: int) -> int:
        """Return the size of a row."""
        return HEADER_CELLS * CELL_BYTES + slots * SLOT_BYTES + (RING * RING_BYTES + LOG_BYTES if slots else 0)

    @classmethod
    def create(cls, rows: int, slots: int = 0) -> Table:
        """Return an empty table. Its descriptor is not inherited by exec unless asked."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("switchyard-slots")
        else:
            with tempfile.TemporaryFile() as unnamed:
                fd = os.dup(unnamed.fileno())
        os.ftruncate(fd, rows * cls.row_bytes(slots))
        return cls(fd, rows, slots)
