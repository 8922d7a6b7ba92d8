"""The credit of a worker: never given twice, in turn, in fair parts, with a bounded stock; marks of what it holds."""

from __future__ import annotations

import threading
import time

import pytest

from switchyard.broker.worker import prefetch as module
from switchyard.broker.worker.prefetch import HeldMarks, KeptSlots, PrefetchCredit
from tests.waiting import wait_for


def take_all(credit: PrefetchCredit) -> int:
    return credit.acquire("somebody", timeout_s=1)


def test_without_stock_no_more_than_the_slots_are_ever_out() -> None:
    credit = PrefetchCredit(4, slots=4)
    for _ in range(50):
        assert take_all(credit) == 4
        assert credit.acquire("somebody", timeout_s=0) == 0
        for _ in range(4):
            credit.release_finished()


def test_stock_grows_with_short_tasks_and_shrinks_with_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    credit = PrefetchCredit(16, slots=8)
    assert take_all(credit) == 16
    for _ in range(16):
        credit.release_finished()
    now[0] += module.PREFETCHED_S
    assert take_all(credit) == 8 + 16
    for _ in range(24):
        credit.release_finished()
    now[0] += 60.0  # 24 in a minute
    assert take_all(credit) == 16


def test_stock_is_bounded_for_each_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    credit = PrefetchCredit(16, slots=8)
    out = take_all(credit)
    for _ in range(20):
        for _ in range(out):
            credit.release_finished()
        now[0] += module.PREFETCHED_S
        out = take_all(credit)
    assert out <= 8 + module.PREFETCHED_A_SLOT * 8


def test_whoever_waits_is_woken_by_room() -> None:
    credit = PrefetchCredit(1, slots=1)
    assert take_all(credit) == 1
    taken: list[int] = []
    waiter = threading.Thread(target=lambda: taken.append(credit.acquire("waiter", timeout_s=60)))
    waiter.start()
    credit.release_finished()
    waiter.join(30)

    assert taken == [1]


def test_room_that_was_not_used_goes_to_another_in_a_fair_part() -> None:
    credit = PrefetchCredit(8, slots=8)
    shares: dict[str, int] = {}
    first = take_all(credit)
    barrier = threading.Barrier(3)

    def wait(name: str) -> None:
        barrier.wait()
        shares[name] = credit.acquire(name, timeout_s=60)

    waiters = [threading.Thread(target=wait, args=(name,)) for name in ("a", "b")]
    for waiter in waiters:
        waiter.start()
    barrier.wait()
    deadline = time.monotonic() + 30
    while len(credit._waiting) < 2:
        assert time.monotonic() < deadline
    credit.release(first)
    for waiter in waiters:
        waiter.join(30)

    assert sum(shares.values()) <= 8
    assert min(shares.values()) >= 1


def test_a_slot_is_kept_for_each_shorter_promise_whatever_the_longer_ones_hold_together() -> None:
    kept = KeptSlots(5, ranks=3)

    assert kept.acquire(2, timeout_s=0) == 3
    assert kept.acquire(2, timeout_s=0) == 0
    assert kept.acquire(1, timeout_s=0) == 1
    assert kept.acquire(1, timeout_s=0) == 0
    assert kept.acquire(0, timeout_s=0) == 1
    assert kept.acquire(0, timeout_s=0) == 0
    kept.release(0, 1)
    assert kept.acquire(1, timeout_s=0) == 0
    assert kept.acquire(0, timeout_s=0) == 1
    kept.release(2, 3)
    assert kept.acquire(1, timeout_s=0) == 3


def test_a_free_slot_goes_to_the_shortest_promise_that_waits() -> None:
    kept = KeptSlots(2, ranks=2)
    assert (kept.acquire(1, timeout_s=0), kept.acquire(0, timeout_s=0)) == (1, 1)
    order: list[int] = []

    def wait(rank: int) -> None:
        kept.acquire(rank, timeout_s=60)
        order.append(rank)

    waiting = {rank: threading.Thread(target=wait, args=(rank,)) for rank in (1, 0)}
    waiting[1].start()
    wait_for(lambda: len(kept._waiting) == 1)
    waiting[0].start()
    wait_for(lambda: len(kept._waiting) == 2)
    kept.release(1, 1)
    waiting[0].join(60)
    assert order == [0]
    kept.release(0, 1)
    waiting[1].join(60)

    assert order == [0, 1]


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
