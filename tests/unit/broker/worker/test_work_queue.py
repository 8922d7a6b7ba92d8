"""The queue between consumers and threads: every wait ends in its time, every item is taken once."""

from __future__ import annotations

import contextlib
import threading
import time
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.broker.worker.prefetch import WorkQueue


def item(priority: int = 0, name: str = "") -> Any:
    return SimpleNamespace(priority=priority, name=name)


def test_the_lowest_priority_number_goes_first_and_equals_in_their_order() -> None:
    queue = WorkQueue()
    for priority, name in ((5, "c"), (0, "a"), (5, "d"), (0, "b")):
        queue.put(item(priority, name))

    assert [queue.get_nowait().name for _ in range(4)] == ["a", "b", "c", "d"]
    with pytest.raises(Empty):
        queue.get_nowait()


def test_a_message_s_level_goes_before_its_item_s_priority() -> None:
    queue = WorkQueue(level=lambda message: message.level)
    for priority, level in ((0, 2), (5, 1), (9, 0), (1, 1)):
        queue.put(SimpleNamespace(priority=priority, message=SimpleNamespace(level=level)))

    assert [queue.get_nowait().priority for _ in range(4)] == [9, 5, 1, 0]


def test_a_wait_ends_in_its_time_however_busy_its_thread_and_its_rivals_are() -> None:
    for _ in range(6):
        assert stuck_takers() == 0


def test_joining_waits_for_what_was_taken_and_not_done() -> None:
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


def test_the_end_wakes_threads_that_wait_for_work_and_those_that_come_later() -> None:
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
