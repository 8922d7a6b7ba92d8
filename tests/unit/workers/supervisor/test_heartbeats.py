"""Detection of children that hang, and of those that are only busy."""

from __future__ import annotations

import time

import pytest

from switchyard.workers.shared.child_table import ChildRow, ChildTable
from switchyard.workers.supervisor.hard_limits import Heartbeats


class Watched:
    """One child, looked at every second of a clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        monkeypatch.setattr("switchyard.workers.supervisor.hard_limits.time.monotonic", lambda: self.now_s)
        self.row: ChildRow = ChildTable.create(1, 1).rows[0]
        self.heartbeats = Heartbeats()
        self.pid = 1
        self.row.ready = True

    def silent_after(self, seconds: int) -> list[tuple[int, float]]:
        """Look every second for so long, and return what the last look found."""
        found: list[tuple[int, float]] = []
        for _ in range(seconds):
            self.now_s += 1.0
            found = self.heartbeats.silent({self.pid: self.row})
        return found


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_a_child_that_runs_nothing_and_gives_no_sign_hangs(watched: Watched) -> None:
    assert watched.silent_after(11) == []
    assert watched.silent_after(1) == [(1, 11.0)]


def test_who_held_the_interpreter_for_long_may_end_in_peace_once_its_task_has(watched: Watched) -> None:
    watched.row.lease(time.monotonic_ns() / 1e9 + 60)
    slot = watched.row.start(0, b"holds", b"1", 60_000_000_000)
    assert slot is not None
    assert watched.silent_after(17) == []

    watched.row.end(slot, worked_off=True)  # the thread that ran it is the first to go on; the one that beats follows

    assert watched.silent_after(1) == []
    assert watched.silent_after(10) == [(1, 11.0)]


def test_a_supervisor_that_stood_still_itself_blames_nobody(watched: Watched) -> None:
    watched.silent_after(9)
    watched.now_s += 60

    assert watched.silent_after(1) == []


def test_who_follows_a_child_that_never_gave_a_sign_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.row.clear()  # it never came up
    assert watched.silent_after(62) == [(1, 61.0)]

    watched.row.clear()
    watched.pid = 2

    assert watched.silent_after(60) == []


def test_the_time_without_an_answer_counts_while_a_task_runs(watched: Watched) -> None:
    watched.row.lease(time.monotonic_ns() / 1e9 + 60)
    assert watched.row.start(0, b"holds", b"1", 60_000_000_000) is not None
    watched.silent_after(9)
    assert watched.heartbeats.unanswered() == {1: 8.0}

    watched.row.beat()
    watched.silent_after(1)

    assert watched.heartbeats.unanswered() == {1: 0.0}
