"""Table in memory shared by a supervisor and its children: a row for each child, with its messages.

The row of a child that hangs, or died, still shows its messages. Every message causes these writes, whose cost is in
the number of objects touched: hence one entry for a message, one call that fills it, and one cell with its state.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import signal
import struct
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic_ns

from switchyard.broker.worker.prefetch import HELD_BYTES, HeldMarks


@dataclass(frozen=True, slots=True)
class ChildState:
    """State of a child."""

    ready: bool  # it is up
    beat_ns: int  # monotonic time of its last heartbeat; 0 before the first
    taken: int  # messages that it started
    done: int  # ended, well or not
    busy: int  # running now
    progress_ns: int = 0  # monotonic time of the first heartbeat after it last started or ended a message
    works: bool = False  # its leases are valid as well
    quiet: bool = False  # it fetches and starts nothing


@dataclass(frozen=True, slots=True)
class Running:
    """A message in a slot."""

    lane: int  # position of its lane among those that the child serves
    id: bytes
    token: int
    start_ns: int  # monotonic
    limit_ns: int  # time it may take; 0 without a limit, or while none runs because it waits for the broker

    @property
    def job_id(self) -> str:
        return str(self.id, "ascii", "replace")

    @property
    def over_at_ns(self) -> int | None:
        return self.start_ns + self.limit_ns if self.limit_ns else None


CELL_BYTES = 8
HEADER_CELLS = 16
READY, BEAT, LEASED, LAST_END, WRITTEN, PROGRESS, WORKING, FULL, RETIRED, LOGGED, STUCK, QUIET, DRAINED, ILL = range(14)
DOZES, LACKS_MEMORY = 14, 15

# Longest id of a message. A foreign message with a longer one cannot be identified, and counts as not running.
ID_BYTES = 200
# Start, limit, token, lane, length of the id, id, stop request, state. The state is written last: once it says that the
# message runs, the rest is there.
_ENTRY = struct.Struct(f"<2q20s2H{ID_BYTES}s2q")
ENTRY_CELLS = _ENTRY.size // CELL_BYTES
# A slot is the index of its entry's state cell. Start, limit and stop request are counted from there.
STATE = ENTRY_CELLS - 1
START, LIMIT, STOP = -STATE, 1 - STATE, -1
# A state is the number of the child's start or end that wrote it, and in its lowest byte the kind of state.
EVENT = 256
RUNS, WORKED_OFF, GONE = 1, 2, 3
KEPT = 512  # ended messages whose entries are kept, at least
LOG_BYTES = 4_096
NO_LIMIT = 0


class RowMark:
    """A cell that is true or false: read and set as an attribute of its row. Setting one that ``wakes`` ends a doze."""

    def __init__(self, cell: int, *, wakes: bool = False) -> None:
        self._cell, self._wakes = cell, wakes

    def __get__(self, row: ChildRow, kind: type) -> bool:
        return bool(row.cells[self._cell])

    def __set__(self, row: ChildRow, value: bool) -> None:
        row.cells[self._cell] = value
        if self._wakes:
            row.wake()


class ChildRow:
    """Row of one child, written by the child except for the supervisor's cells; cleared between children."""

    ready, working = RowMark(READY), RowMark(WORKING)  # it is up; it consumes
    full = RowMark(FULL, wakes=True)  # it starts no more messages, and must be replaced because of what it holds
    lacks_memory = RowMark(LACKS_MEMORY)  # it is full because of its memory
    stuck = RowMark(STUCK, wakes=True)  # something in it never goes on: a message that nothing runs, a lock
    ill = RowMark(ILL, wakes=True)  # its process has no file descriptor left
    retired = RowMark(RETIRED)  # by the supervisor: a successor works, its tasks may end without grace period
    quiet = RowMark(QUIET)  # it fetches and starts nothing, while what it runs ends
    drained = RowMark(DRAINED)  # nothing but its exit follows; one that a task ended has not drained, whatever its code
    dozes = RowMark(DOZES)  # it has started nothing, nor marked itself, since :meth:`doze`

    def __init__(self, memory: memoryview, slots: int) -> None:
        self._memory = memory
        self.cells = memory.cast("q")
        self._entries = entries_of(slots)
        # The entry that ended first is overwritten first.
        self._free = deque(HEADER_CELLS + entry * ENTRY_CELLS + STATE for entry in range(self._entries))
        self._kinds_at = (HEADER_CELLS + STATE) * CELL_BYTES
        self._log_at = (HEADER_CELLS + self._entries * ENTRY_CELLS) * CELL_BYTES
        self.held_marks = HeldMarks(self.cells[self._log_at // CELL_BYTES + LOG_BYTES // CELL_BYTES :])
        self._events = itertools.count(EVENT, EVENT)
        self._moved = 0

    def read(self) -> ChildState:
        cells = self.cells
        taken, done = self._counts()
        busy, ready = max(taken - done, 0), bool(cells[READY])
        return ChildState(ready, cells[BEAT], taken, done, busy, cells[PROGRESS], ready and self.leased, self.quiet)

    def clear(self) -> None:
        self._memory[:] = bytes(len(self._memory))

    def beat(self) -> None:
        """Write a heartbeat, and the progress since the one before."""
        now_ns = self.cells[BEAT] = monotonic_ns()
        moved = sum(self._counts())
        if moved != self._moved:
            self._moved, self.cells[PROGRESS] = moved, now_ns

    def progressed(self) -> None:
        self.cells[PROGRESS] = monotonic_ns()

    def lease(self, until_s: float) -> None:
        """Set, as the supervisor, the monotonic time until which the child's leases are certainly valid."""
        self.cells[LEASED] = int(until_s * 1e9)

    @property
    def leased(self) -> bool:
        """Whether the child may fetch and start messages."""
        return self.cells[LEASED] > monotonic_ns()

    def doze(self, dozes: bool = True) -> None:
        """Have the child signal its next start or mark to this process, its supervisor, which does not look before."""
        self.cells[DOZES] = os.getpid() if dozes else 0

    def wake(self) -> None:
        """Signal the supervisor that dozes."""
        if supervisor := self.cells[DOZES]:
            self.cells[DOZES] = 0
            with contextlib.suppress(OSError):  # it is gone
                os.kill(supervisor, signal.SIGCHLD)

    def log(self, text: str) -> None:
        """Keep the last 4 KiB of the child's log. Not thread-safe."""
        data = text.encode("utf-8", "backslashreplace")
        # Cut text counts as well, so that a line without its beginning, where a secret may be named, is recognised.
        logged, data = self.cells[LOGGED] + max(len(data) - LOG_BYTES, 0), data[-LOG_BYTES:]
        at = logged % LOG_BYTES
        first = data[: LOG_BYTES - at]
        self._memory[self._log_at + at : self._log_at + at + len(first)] = first
        self._memory[self._log_at : self._log_at + len(data) - len(first)] = data[len(first) :]
        self.cells[LOGGED] = logged + len(data)

    def logged(self) -> list[str]:
        """Return the last whole lines of the child's log."""
        logged = self.cells[LOGGED]
        kept = bytes(self._memory[self._log_at : self._log_at + min(logged, LOG_BYTES)])
        if logged > LOG_BYTES:
            _, _, kept = (kept[logged % LOG_BYTES :] + kept[: logged % LOG_BYTES]).partition(b"\n")
        return kept.decode("utf-8", "replace").splitlines()

    def start(self, lane: int, id_: bytes, token: bytes, limit_ns: int) -> int | None:
        """Write a message that starts.

        Returns:
            Its slot until it ends; ``None``, with nothing written, if the child is quiet or its leases may be expired.
        """
        now_ns = monotonic_ns()
        if self.cells[LEASED] <= now_ns or self.cells[QUIET]:
            return None
        slot = self._free.popleft()
        state, at = next(self._events) + RUNS, (slot - STATE) * CELL_BYTES
        _ENTRY.pack_into(self._memory, at, now_ns, limit_ns, token, lane, len(id_), id_, 0, state)
        if self.cells[DOZES]:
            self.wake()
        return slot

    def end(self, slot: int, *, worked_off: bool) -> None:
        """Free a slot, and keep the end of its message until 512 others have ended."""
        self.cells[slot] = self.cells[LAST_END] = next(self._events) + (WORKED_OFF if worked_off else GONE)
        self._free.append(slot)

    def stop_clock(self, slot: int) -> int:
        """Stop the limit of a slot's message; return the limit that ran, or 0."""
        limit_ns, self.cells[slot + LIMIT] = self.cells[slot + LIMIT], NO_LIMIT
        return limit_ns

    def start_clock(self, slot: int, limit_ns: int) -> None:
        """Start a limit for a slot's message, from now on."""
        self.cells[slot + START] = monotonic_ns()
        self.cells[slot + LIMIT] = limit_ns  # written last: the limit is never measured from the first start

    def request_stop(self, ran: Running) -> None:
        """Request, as the supervisor, that a running message stops."""
        for slot, state, found in self._running():
            if found == ran:
                self.cells[slot + STOP] = state

    def is_to_stop(self, slot: int) -> bool:
        """Return whether the supervisor requested that the message in a slot stops."""
        return self.cells[slot + STOP] == self.cells[slot]

    def last_end(self) -> int:
        """Return the number of the last end, for :meth:`confirm_flush`."""
        return self.cells[LAST_END]

    def confirm_flush(self, last_end: int) -> None:
        """Note that metrics and job records are written of the messages up to an end.

        Called by :class:`switchyard.broker.worker.acks.AckBarrier`, last in each flush.
        """
        self.cells[WRITTEN] = max(self.cells[WRITTEN], last_end)  # a later flush may have been quicker

    def running(self) -> list[Running]:
        return [ran for _, _, ran in self._running()]

    def finished(self) -> list[Running]:
        """Return the last finished messages of a child that has ended, of those whose records are written."""
        written = self.cells[WRITTEN]
        return [ran for state, ran in self._ended() if state <= written]

    def ended_unwritten(self, count: int) -> list[Running]:
        """Return up to ``count`` messages of an ended child whose tasks ended last, their records not written."""
        written = self.cells[WRITTEN]
        unwritten = sorted((ended for ended in self._ended() if ended[0] > written), reverse=True)
        return [ran for _, ran in unwritten[:count]]

    def _ended(self) -> Iterator[tuple[int, Running]]:
        """Yield state and message of each entry that is kept of an ended message.

        A child may have died while it filled an entry, which clears it first: entries without token or id are left out.
        """
        for slot in self._slots(WORKED_OFF):
            start_ns, _, token, lane, length, id_, _, state = self._entry(slot)
            if token.rstrip(b"\0").isdigit() and 0 < length <= ID_BYTES:
                yield state, Running(lane, id_[:length], int(token.rstrip(b"\0")), start_ns, NO_LIMIT)

    def _running(self) -> Iterator[tuple[int, int, Running]]:
        """Yield slot, state and message of each running message.

        An entry that is being filled may be read half written: two reads must agree, on the state as well.
        """
        for slot in self._slots(RUNS):
            state, entry = self.cells[slot], self._entry(slot)
            start_ns, limit_ns, token, lane, length, id_, _, seen = entry
            if state % EVENT == RUNS and seen == state and entry == self._entry(slot) and 0 < length <= ID_BYTES:
                yield slot, state, Running(lane, id_[:length], int(token.rstrip(b"\0")), start_ns, limit_ns)

    def _entry(self, slot: int) -> tuple[int, int, bytes, int, int, bytes, int, int]:
        return _ENTRY.unpack_from(self._memory, (slot - STATE) * CELL_BYTES)

    def _slots(self, kind: int) -> list[int]:
        """Return the slots in one kind of state. A supervisor calls this function up to a hundred times a second."""
        if not self._entries:
            return []
        kinds = self._memory[self._kinds_at : self._log_at : _ENTRY.size].tobytes()
        slots, at = [], kinds.find(kind)
        while at >= 0:
            slots.append(HEADER_CELLS + at * ENTRY_CELLS + STATE)
            at = kinds.find(kind, at + 1)
        return slots

    def _counts(self) -> tuple[int, int]:
        """Return how many messages were started, and how many ended."""
        running = [state for slot in self._slots(RUNS) if (state := self.cells[slot]) % EVENT == RUNS]
        events, busy = max([self.cells[LAST_END], *running]) // EVENT, len(running)
        return (events + busy) // 2, max(events - busy, 0) // 2


def entries_of(slots: int) -> int:
    """Return the number of entries of a row: 0 for a process that runs no messages."""
    return slots + KEPT if slots else 0


class ChildTable:
    """Rows in memory that is shared by fork, and by exec through the descriptor of its anonymous file."""

    def __init__(self, fd: int, rows: int, slots: int = 0) -> None:
        self.fd = fd
        self.slots = slots
        size = self.row_bytes(slots)
        self._map = mmap.mmap(fd, rows * size)
        memory = memoryview(self._map)
        self.rows = tuple(ChildRow(memory[row * size : (row + 1) * size], slots) for row in range(rows))

    @staticmethod
    def row_bytes(slots: int) -> int:
        return HEADER_CELLS * CELL_BYTES + entries_of(slots) * _ENTRY.size + (LOG_BYTES + HELD_BYTES if slots else 0)

    @classmethod
    def create(cls, rows: int, slots: int = 0) -> ChildTable:
        """Return an empty table. Its descriptor is not inherited by exec unless asked."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("switchyard-slots")
        else:
            with tempfile.TemporaryFile() as unnamed:
                fd = os.dup(unnamed.fileno())
        os.ftruncate(fd, rows * cls.row_bytes(slots))
        return cls(fd, rows, slots)
