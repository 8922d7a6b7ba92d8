"""The queue between consumers and threads, and the credit of a worker: every item once, every wait in its time."""

import contextlib
import threading
import time
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.broker.worker import prefetch as module
from switchyard.broker.worker.prefetch import HeldMarks, KeptSlots, PrefetchCredit, WorkQueue
from tests.waiting import wait_for


def item(priority: int = 0, name: str = "") -> Any:
    return SimpleNamespace(priority=priority, name=name)


def test_the_lowest_priority_number_goes_first_and_equals_in_their_order():
    queue = WorkQueue()
    for priority, name in ((5, "c"), (0, "a"), (5, "d"), (0, "b")):
        queue.put(item(priority, name))

    assert [queue.get_nowait().name for _ in range(4)] == ["a", "b", "c", "d"]
    with pytest.raises(Empty):
        queue.get_nowait()


def test_a_message_s_level_goes_before_its_item_s_priority():
    queue = WorkQueue(level=lambda message: message.level)
    for priority, level in ((0, 2), (5, 1), (9, 0), (1, 1)):
        queue.put(SimpleNamespace(priority=priority, message=SimpleNamespace(level=level)))

    assert [queue.get_nowait().priority for _ in range(4)] == [9, 5, 1, 0]


def test_a_wait_ends_in_its_time_however_busy_its_thread_and_its_rivals_are():
    for _ in range(6):
        assert stuck_takers() == 0


def test_joining_waits_for_what_was_taken_and_not_done():
    queue = WorkQueue()
    queue.put(item())
    thread = threading.Thread(target=queue.join, daemon=True)
    thread.start()
    queue.get_nowait()

    assert thread.is_alive()
    queue.task_done()
    thread.join(30)
    assert not thread.is_alive()


def stuck_takers(threads: int = 8, for_s: float = 0.3) -> int:
    """Return how many of several busy threads, asking again and again for a millisecond, do not come back."""
    queue, stop = WorkQueue(), threading.Event()
    taken: list[Any] = []

    def take() -> None:
        while not stop.is_set():
            with contextlib.suppress(Empty):
                taken.append(queue.get(timeout=0.001))
                sum(range(20_000))

    takers = [threading.Thread(target=take, daemon=True) for _ in range(threads)]
    for taker in takers:
        taker.start()
    put, until_s = 0, time.monotonic() + for_s
    while not stop.wait(0.001):
        queue.put(item())
        queue.put(item())
        put += 2
        if time.monotonic() > until_s:
            stop.set()
    for taker in takers:
        taker.join(10)
    with contextlib.suppress(Empty):
        while True:
            taken.append(queue.get_nowait())
    assert len({id(found) for found in taken}) == len(taken) == put, "each item is taken once"
    return sum(taker.is_alive() for taker in takers)


def test_the_end_wakes_threads_that_wait_for_work_and_those_that_come_later():
    queue, woken = WorkQueue(), list[str]()
    queue.patient = True

    def wait() -> None:
        with contextlib.suppress(Empty):
            queue.get(timeout=0.001)
        woken.append("up")

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    queue.end()
    wait()
    for thread in threads:
        thread.join(60)

    assert woken == ["up"] * 3


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock's seconds, in a list that a test changes."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def finish(credit: PrefetchCredit, count: int) -> None:
    for _ in range(count):
        credit.release_finished()


def take_all(credit: PrefetchCredit) -> int:
    return credit.acquire("somebody", timeout_s=1)


def test_without_stock_no_more_than_the_slots_are_ever_out():
    credit = PrefetchCredit(4, slots=4)
    for _ in range(50):
        assert (take_all(credit), credit.acquire("somebody", timeout_s=0)) == (4, 0)
        finish(credit, 4)


def test_stock_grows_with_short_tasks_and_shrinks_with_long_ones(now):
    credit = PrefetchCredit(16, slots=8)
    assert take_all(credit) == 16
    finish(credit, 16)
    now[0] += module.PREFETCHED_S
    assert take_all(credit) == 8 + 16
    finish(credit, 24)
    now[0] += 60.0  # 24 in a minute
    assert take_all(credit) == 16


def test_stock_is_bounded_for_each_slot(now):
    credit = PrefetchCredit(16, slots=8)
    out = take_all(credit)
    for _ in range(20):
        finish(credit, out)
        now[0] += module.PREFETCHED_S
        out = take_all(credit)
    assert out <= 8 + module.PREFETCHED_A_SLOT * 8


def test_whoever_waits_is_woken_by_room():
    credit = PrefetchCredit(1, slots=1)
    assert take_all(credit) == 1
    taken: list[int] = []
    waiter = threading.Thread(target=lambda: taken.append(credit.acquire("waiter", timeout_s=60)))
    waiter.start()
    credit.release_finished()
    waiter.join(30)

    assert taken == [1]


def test_room_that_was_not_used_goes_to_another_in_a_fair_part():
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
    wait_for(lambda: len(credit._waiting) == 2)
    credit.release(first)
    for waiter in waiters:
        waiter.join(30)

    assert sum(shares.values()) <= 8
    assert min(shares.values()) >= 1


def test_a_slot_is_kept_for_each_shorter_promise_whatever_the_longer_ones_hold_together():
    kept = KeptSlots(5, ranks=3)

    assert [kept.acquire(rank, timeout_s=0) for rank in (2, 2, 1, 1, 0, 0)] == [3, 0, 1, 0, 1, 0]
    kept.release(0, 1)
    assert [kept.acquire(rank, timeout_s=0) for rank in (1, 0)] == [0, 1]
    kept.release(2, 3)
    assert kept.acquire(1, timeout_s=0) == 3


def test_a_free_slot_goes_to_the_shortest_promise_that_waits():
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


def test_a_supervisor_reads_what_is_held_and_nothing_that_was_released():
    cells = memory(4)
    child, supervisor = HeldMarks(cells), HeldMarks(cells)
    kept = [child.hold(mark) for mark in (2**63 - 1, 7)]
    gone = child.hold(9)
    assert gone is not None
    child.release(gone)

    assert None not in kept
    assert sorted(supervisor.read()) == [7, 2**63 - 1]


def test_what_finds_no_cell_is_left_out_until_one_is_free_and_without_memory_nothing_is_written():
    marks = HeldMarks(memory(1))
    cell = marks.hold(1)
    assert cell == 0

    assert marks.hold(2) is None
    marks.release(cell)
    assert (marks.hold(3), marks.read()) == (0, [3])
    assert HeldMarks(memory(0)).hold(1) is None
