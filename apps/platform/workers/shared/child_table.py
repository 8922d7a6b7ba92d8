"""The table that a supervisor shares with its children: a row each, with what the child runs and what it finished.

A row needs nothing of the child when it is read: one that hangs, or died, still shows what it was doing.

Each message pays for what is written here, and in a worker that does much else between two of them it pays for every
object that is touched, not for the instructions. Hence one record for a message from its start to the end of its
memory, one call that fills it in, and one cell that says what became of it.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

CELL_BYTES = 8
HEADER_CELLS = 16  # more than are used, so that a row can grow where it stands
READY, BEAT, LEASED, LAST_END, WRITTEN, PROGRESS, WORKING, FULL, RETIRED, LOGGED = range(10)

# As long as an id may be. What somebody put there with a longer one cannot be told apart, and counts as not running.
ID_BYTES = 200
# Start, limit, token, lane, length of the id, id, asked, state. The state comes last: once it says that the message
# runs, the rest is there.
_RECORD = struct.Struct(f"<2q20s2H{ID_BYTES}s2q")
RECORD_CELLS = _RECORD.size // CELL_BYTES
# A slot is the cell that holds its record's state. Start, limit and asked are counted from there.
STATE = RECORD_CELLS - 1
START, LIMIT, ASKED = -STATE, 1 - STATE, -1
# A state is the number of the child's start or end that wrote it, and in its lowest byte what became of the message.
EVENT = 256
RUNS, WORKED_OFF, GONE = 1, 2, 3
# So many messages that ended are remembered at least.
KEPT = 512
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
        works: It is up, and its leases last.
    """

    ready: bool
    beat_ns: int
    taken: int
    done: int
    busy: int
    progress_ns: int = 0
    works: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A message in a slot.

    Args:
        lane: Position of its lane among those that the child serves.
        limit_ns: Time it may take; 0 without a limit, or while none runs because it waits for the broker.
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


class ChildRow:
    """One child's part. Written by the child, but for what its supervisor says to it, and cleared by the supervisor
    while there is no child.

    Args:
        memory: Of :meth:`ChildTable.row_bytes` bytes.
    """

    def __init__(self, memory: memoryview, slots: int) -> None:
        self._memory = memory
        self._cells = memory.cast("q")
        self._records = records_of(slots)
        # The oldest end is overwritten first.
        self._free = deque(HEADER_CELLS + place * RECORD_CELLS + STATE for place in range(self._records))
        self._kinds_at = (HEADER_CELLS + STATE) * CELL_BYTES
        self._log_at = (HEADER_CELLS + self._records * RECORD_CELLS) * CELL_BYTES
        self._events = itertools.count(EVENT, EVENT)
        self._moved = 0

    def read(self) -> ChildState:
        """Return what the child wrote last."""
        cells = self._cells
        taken, done = self._counts()
        busy, ready = max(taken - done, 0), bool(cells[READY])
        return ChildState(ready, cells[BEAT], taken, done, busy, cells[PROGRESS], ready and self.leased)

    def clear(self) -> None:
        """Forget the child before."""
        self._memory[:] = bytes(len(self._memory))

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

    def start(self, lane: int, id_: bytes, token: bytes, limit_ns: int) -> int | None:
        """Put down a message that starts.

        Returns:
            Its slot until it ends; ``None`` if the child's leases may have lapsed, and nothing was put down.
        """
        now_ns = time.monotonic_ns()
        if self._cells[LEASED] <= now_ns:
            return None
        slot = self._free.popleft()
        state, at = next(self._events) + RUNS, (slot - STATE) * CELL_BYTES
        _RECORD.pack_into(self._memory, at, now_ns, limit_ns, token, lane, len(id_), id_, 0, state)
        return slot

    def end(self, slot: int, *, worked_off: bool) -> None:
        """Empty a slot, and remember until 512 others have ended what became of its message."""
        self._cells[slot] = self._cells[LAST_END] = next(self._events) + (WORKED_OFF if worked_off else GONE)
        self._free.append(slot)

    def stop_clock(self, slot: int) -> int:
        """Let no limit run for a slot's message; return the one that did, or 0."""
        limit_ns, self._cells[slot + LIMIT] = self._cells[slot + LIMIT], NO_LIMIT
        return limit_ns

    def start_clock(self, slot: int, limit_ns: int) -> None:
        """Let a limit run for a slot's message, from now on."""
        self._cells[slot + START] = time.monotonic_ns()
        self._cells[slot + LIMIT] = limit_ns  # last: it is never measured from the first start

    def ask(self, ran: Running) -> None:
        """Say, as its supervisor, that a running message was asked to stop."""
        for slot, state, found in self._running():
            if found == ran:
                self._cells[slot + ASKED] = state

    def is_asked(self, slot: int) -> bool:
        """Whether the message in a slot was asked to stop."""
        return self._cells[slot + ASKED] == self._cells[slot]

    def last_end(self) -> int:
        """Return the number of the last end, for :meth:`confirm_flush`."""
        return self._cells[LAST_END]

    def confirm_flush(self, last_end: int) -> None:
        """Note that metrics and job records are written of the messages up to an end.

        Called by :class:`broker.worker.ack_barrier.AckBarrier`, last in each flush.
        """
        self._cells[WRITTEN] = max(self._cells[WRITTEN], last_end)  # a later flush may have been quicker

    def running(self) -> list[Running]:
        """Return what the slots hold."""
        return [ran for _, _, ran in self._running()]

    def finished(self) -> list[Finished]:
        """Return the messages that were worked off last and of which all is written.

        For a child that has ended. It may have died while it filled a record anew, which clears that first: what has
        no token or id any more is left out.
        """
        found = []
        for slot in self._slots(WORKED_OFF):
            _, _, token, lane, length, id_, _, state = self._record(slot)
            if state <= self._cells[WRITTEN] and token.rstrip(b"\0").isdigit() and 0 < length <= ID_BYTES:
                found.append(Finished(lane, id_[:length], int(token.rstrip(b"\0"))))
        return found

    def _running(self) -> Iterator[tuple[int, int, Running]]:
        """Yield slot, state and message of what runs.

        A record that is filled anew meanwhile may be seen half written: two looks must agree, on the state as well.
        """
        for slot in self._slots(RUNS):
            state, record = self._cells[slot], self._record(slot)
            start_ns, limit_ns, token, lane, length, id_, _, seen = record
            if state % EVENT == RUNS and seen == state and record == self._record(slot) and 0 < length <= ID_BYTES:
                yield slot, state, Running(lane, id_[:length], int(token.rstrip(b"\0")), start_ns, limit_ns)

    def _record(self, slot: int) -> tuple[int, int, bytes, int, int, bytes, int, int]:
        return _RECORD.unpack_from(self._memory, (slot - STATE) * CELL_BYTES)

    def _slots(self, kind: int) -> list[int]:
        """Return the slots whose messages are of a kind. A supervisor asks up to a hundred times a second."""
        if not self._records:
            return []
        kinds = self._memory[self._kinds_at : self._log_at : _RECORD.size].tobytes()
        places, place = [], kinds.find(kind)
        while place >= 0:
            places.append(HEADER_CELLS + place * RECORD_CELLS + STATE)
            place = kinds.find(kind, place + 1)
        return places

    def _counts(self) -> tuple[int, int]:
        """Return how many messages were started, and how many ended. As many more were started as run."""
        running = [state for slot in self._slots(RUNS) if (state := self._cells[slot]) % EVENT == RUNS]
        events, busy = max([self._cells[LAST_END], *running]) // EVENT, len(running)
        return (events + busy) // 2, max(events - busy, 0) // 2


def records_of(slots: int) -> int:
    """Return how many records a row has: none for a process that runs no messages."""
    return slots + KEPT if slots else 0


class ChildTable:
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
        self.rows = tuple(ChildRow(memory[row * size : (row + 1) * size], slots) for row in range(rows))

    @staticmethod
    def row_bytes(slots: int) -> int:
        """Return the size of a row."""
        return HEADER_CELLS * CELL_BYTES + records_of(slots) * _RECORD.size + (LOG_BYTES if slots else 0)

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
