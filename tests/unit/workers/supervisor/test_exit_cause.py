"""Messages that are suspected when a child ends."""

from __future__ import annotations

import pytest

from switchyard.workers.shared.child_table import Running
from switchyard.workers.supervisor.leases import Leftovers, Served
from switchyard.workers.supervisor.processes import ExitCause, suspects_of

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
