"""Marks of the messages that a worker process holds, in memory that its supervisor reads after its end."""

from __future__ import annotations

from collections import deque
from typing import Final

CELL_BYTES: Final = 8
# Further messages that a child holds are not written: after a crash they run alone once.
CELLS: Final = 1_024
HELD_BYTES: Final = CELLS * CELL_BYTES


class HeldMarks:
    """Cells (64 bits) with the marks of held messages, 0 where there is none. Any thread may write."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self._free = deque(range(len(cells)))

    def hold(self, mark: int) -> int | None:
        """Write the mark of a message that was received; return its cell, or ``None`` when all are in use."""
        try:
            cell = self._free.popleft()
        except IndexError:
            return None
        self._cells[cell] = mark
        return cell

    def release(self, cell: int) -> None:
        self._cells[cell] = 0
        self._free.append(cell)

    def read(self) -> list[int]:
        """Return the marks of all messages that are held."""
        return [mark for mark in self._cells.tolist() if mark]
