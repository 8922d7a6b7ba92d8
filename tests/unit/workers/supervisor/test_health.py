"""Health of a pool and its children: messages are fetched, or none wait; who hangs, and who is only busy."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.topology import Pool
from switchyard.workers.shared.child_table import ChildRow, ChildTable
from switchyard.workers.supervisor.hard_limits import Heartbeats
from switchyard.workers.supervisor.report import STUCK_S, PoolHealth
from tests.unit.workers.supervisor.conftest import Server, begin, make_children

STUCK = "messages wait, and none was taken for 31 s"


class Clock:
    """A time that is set by hand."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class AwayServer(Server):
    """A server that may be away."""

    away = False
    addon = None

    def _refuse(self) -> None:
        if self.away:
            raise BrokerUnavailable("renew", "away")


class Bench:
    """A pool with two children that work, one free position, and messages that wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = AwayServer()
        self.server.waiting = 7
        self.children = make_children(Pool("work", queues=("work",), kind="threads", processes=2, slots=4), self.server)
        for process in self.children.own[:2]:
            process.pid = 100 + process.index
            self.row(process.index).lease(time.monotonic() + 60)
            self.row(process.index).working = True
        self.clock = Clock()
        monkeypatch.setattr("switchyard.workers.supervisor.report.time", self.clock)
        self.health = PoolHealth(self.children)
        self.poll()

    def row(self, index: int) -> ChildRow:
        return self.children.rows[index]

    def poll(self) -> None:
        self.children.leases.keeper.poll_now()
        self.children.leases.backlog._poll_at_s = 0.0
        self.children.leases.tick(self.children.rows)

    def reason(self) -> str:
        return self.health.unhealthy_reason()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A pool that works."""
    return Bench(monkeypatch)


def test_a_pool_that_takes_nothing_though_messages_wait_is_unhealthy(bench: Bench) -> None:
    assert bench.reason() == ""
    bench.clock.now_s = STUCK_S
    assert bench.reason() == ""

    bench.clock.now_s = STUCK_S + 1
    assert bench.reason() == STUCK

    bench.row(2).end(begin(bench.row(2)), worked_off=True)
    assert bench.reason() == "", "it takes messages again"
    bench.clock.now_s += STUCK_S
    assert bench.reason() == "", "and has all the time anew"
    bench.clock.now_s += 1
    assert bench.reason() == STUCK


def test_a_pool_has_its_time_from_when_it_last_ran_something(bench: Bench) -> None:
    slot = begin(bench.row(1))
    bench.clock.now_s = 10 * STUCK_S
    assert bench.reason() == ""
    bench.row(1).end(slot, worked_off=True)

    bench.clock.now_s = 11 * STUCK_S
    assert bench.reason() == ""
    bench.clock.now_s += 1
    assert bench.reason() == STUCK


def run_something(bench: Bench) -> None:
    """Have a child run a message."""
    begin(bench.row(1))


def have_nothing_wait(bench: Bench) -> None:
    """Have no message wait, or all of them paused."""
    bench.server.waiting = 0
    bench.poll()


def lose_the_broker(bench: Bench) -> None:
    """Have the broker not answer."""
    bench.server.away = True
    bench.poll()


@pytest.mark.parametrize("excuse", [run_something, have_nothing_wait, lose_the_broker])
def test_a_pool_that_runs_something_or_has_nothing_to_take_is_healthy_for_any_time(
    bench: Bench, excuse: Callable[[Bench], None]
) -> None:
    excuse(bench)

    for bench.clock.now_s in (0.0, STUCK_S + 1, 10 * STUCK_S):
        assert bench.reason() == ""


def test_a_broker_that_was_away_gives_a_pool_all_its_time_anew(bench: Bench) -> None:
    assert bench.reason() == ""
    lose_the_broker(bench)
    bench.clock.now_s = 2 * STUCK_S
    assert bench.reason() == ""

    bench.server.away = False
    bench.poll()

    bench.clock.now_s += 1
    assert bench.reason() == ""
    bench.clock.now_s += STUCK_S
    assert bench.reason() == STUCK


def test_a_pool_without_a_child_that_consumes_is_unhealthy(bench: Bench) -> None:
    for process in bench.children.own:
        process.pid = 0

    assert bench.reason() == "no child works"


def test_a_pool_that_pauses_has_all_its_time_anew_afterwards(bench: Bench) -> None:
    assert bench.reason() == ""
    bench.clock.now_s = STUCK_S + 1

    bench.health.reset()

    assert bench.reason() == ""


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
