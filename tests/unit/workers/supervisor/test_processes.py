"""Processes: when they are reaped, restarted and replaced, and what is suspected of their end."""

from __future__ import annotations

import math
import os

import pytest

from switchyard.broker.topology import Pool
from switchyard.workers.shared.child_table import Running
from switchyard.workers.supervisor.children import POLL_SUCCESSOR_S, Recycling
from switchyard.workers.supervisor.leases import Leftovers, Served
from switchyard.workers.supervisor.processes import ExitCause, Process, ProcessSet, suspects_of
from tests.unit.workers.supervisor.conftest import Server, begin, make_children


def test_a_process_that_worked_is_started_again_at_once() -> None:
    assert Process(1).delay_s(worked=True) == 0.0


def test_a_process_that_dies_before_it_worked_waits_longer_each_time_up_to_30_s() -> None:
    process = Process(1)

    waits = [process.delay_s(worked=False) for _ in range(12)]

    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == 30.0
    assert waits == sorted(waits)


def test_work_forgives_idle_deaths() -> None:
    process = Process(1)
    for _ in range(5):
        process.delay_s(worked=False)

    process.delay_s(worked=True)

    assert process.delay_s(worked=False) == 0.1


def test_a_process_is_reaped_and_noted_when_it_has_ended() -> None:
    started: list[int] = []
    ended: list[int] = []

    def start(index: int) -> int:
        started.append(os.spawnlp(os.P_NOWAIT, "true", "true"))
        return started[-1]

    def note_end(index: int, pid: int, status: int) -> bool:
        ended.append(pid)
        processes.stop()
        return True

    processes = ProcessSet(1, start=start, ended=note_end)
    processes.work()
    os.waitid(os.P_PID, started[0], os.WEXITED | os.WNOWAIT)  # waits for its end, and leaves it to be reaped
    processes.work()

    assert ended == started
    assert processes.pids == []


SERVED = Served(("work",), (("work", "live"),))
OVER = Running(lane=0, id=b"over", token=1, start_ns=0, limit_ns=2_000_000_000)
NEIGHBOUR = Running(lane=0, id=b"neighbour", token=2, start_ns=0, limit_ns=60_000_000_000)


def blamed(running: list[Running], *, clean: bool) -> tuple[tuple[Running, ...], str]:
    ending = ExitCause("hard_limit", over=(OVER,))
    return suspects_of(Leftovers("child", SERVED, running), ending, clean=clean, description="exited with 3")


@pytest.mark.parametrize("clean", [True, False])
def test_who_is_over_its_hard_limit_is_blamed_also_where_the_grace_is_shorter_than_the_time_to_end(clean: bool) -> None:
    assert blamed([OVER, NEIGHBOUR], clean=clean) == ((OVER,), "limit of 2 s")


def test_who_ended_in_that_time_is_not() -> None:
    assert blamed([NEIGHBOUR], clean=True) == ((), "")


def test_what_a_task_left_may_crash_its_child_before_the_task_is_acknowledged() -> None:
    ended = Running(lane=0, id=b"ended", token=3, start_ns=0, limit_ns=0)

    noted, unnoted = Leftovers("child", SERVED, [ended]), Leftovers("child", SERVED, unwritten=[ended])

    for left in (noted, unnoted):
        assert suspects_of(left, None, clean=False, description="exited with 1") == ((ended,), "exited with 1")
        assert suspects_of(left, None, clean=True, description="exited with 0") == ((), "")


def test_a_pause_in_the_middle_of_a_replacement_does_not_end_all_replacements() -> None:
    pool = Pool("work", queues=("work",), kind="threads", processes=1, slots=1, recycle_after=10)
    children = make_children(pool, Server())
    recycling = Recycling(children)
    children.own[0].pid = 2**22  # beyond the largest pid
    row = children.rows[1]
    row.lease(9e8)
    for _ in range(10):
        slot = row.start(0, b"id", b"1", 0)
        assert slot is not None
        row.end(slot, worked_off=True)
    assert recycling.enforce() == POLL_SUCCESSOR_S
    assert children.own[1].wanted

    children.pause()
    children.resume()
    children.own[0].pid = 0

    assert recycling.enforce() == math.inf


def test_a_pause_in_the_middle_of_a_replacement_leaves_every_position_filled() -> None:
    pool = Pool("work", queues=("work",), kind="threads", processes=2, slots=1, recycle_after=1)
    children = make_children(pool, Server())
    recycling = Recycling(children)
    free, old, other = children.own
    free.wanted, old.pid, other.pid, other.wanted = False, 2**22, 2**22 + 1, True  # pids beyond the largest one
    row = children.rows[old.index]
    row.lease(9e8)
    row.end(begin(row), worked_off=True)
    assert recycling.enforce() == POLL_SUCCESSOR_S
    assert free.wanted

    children.pause()
    old.pid = other.pid = 0
    recycling.enforce()
    children.resume()
    children.rows[free.index].working = True
    recycling.enforce()

    assert free.wanted
    assert old.wanted
