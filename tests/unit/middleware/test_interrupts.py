"""A task's time limit: whose it is, and that it never strikes what comes after the task."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from dramatiq.middleware import TimeLimitExceeded

from middleware.interrupts import ThreadInterrupts


def test_a_limit_that_is_raised_late_stays_out_of_what_comes_after_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupts = ThreadInterrupts()
    raising, ended = threading.Event(), threading.Event()
    arrived: list[BaseException] = []
    raise_now: Any = __import__("dramatiq.threading", fromlist=["x"]).raise_thread_exception

    def raise_late(thread_id: int, exception: type[BaseException]) -> None:
        raising.set()
        ended.wait(0.1)  # the task ends between the look at its deadline and the exception
        raise_now(thread_id, exception)

    def task() -> None:
        try:
            interrupts.begin("a-job", 0)
            raising.wait(5)
            interrupts.end()
            ended.set()
            for _ in range(100):
                threading.Event().wait(0.002)
        except TimeLimitExceeded as late:
            arrived.append(late)

    monkeypatch.setattr("middleware.interrupts.raise_thread_exception", raise_late)
    thread = threading.Thread(target=task)
    thread.start()
    while not raising.is_set():
        interrupts.raise_due()
    thread.join(5)

    assert arrived == []
