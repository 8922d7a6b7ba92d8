"""Marks of held publications: written by a worker, read by its supervisor from the same memory."""

from __future__ import annotations

from switchyard.broker.worker.prefetch import HeldMarks


def memory(cells: int) -> memoryview:
    return memoryview(bytearray(cells * 8)).cast("q")


def test_a_supervisor_reads_what_is_held_and_nothing_that_was_released() -> None:
    cells = memory(4)
    child, supervisor = HeldMarks(cells), HeldMarks(cells)
    kept = [child.hold(mark) for mark in (2**63 - 1, 7)]
    gone = child.hold(9)
    assert gone is not None
    child.release(gone)

    assert None not in kept
    assert sorted(supervisor.read()) == [7, 2**63 - 1]


def test_what_finds_no_cell_is_left_out_until_one_is_free() -> None:
    marks = HeldMarks(memory(1))
    cell = marks.hold(1)
    assert cell == 0

    assert marks.hold(2) is None
    marks.release(cell)
    assert (marks.hold(3), marks.read()) == (0, [3])


def test_without_memory_nothing_is_written() -> None:
    assert HeldMarks(memory(0)).hold(1) is None
