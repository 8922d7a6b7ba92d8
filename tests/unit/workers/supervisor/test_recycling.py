"""Replacement of children by age."""

from __future__ import annotations

import math

from switchyard.broker.topology import Pool
from switchyard.workers.supervisor.children import POLL_SUCCESSOR_S, Recycling
from tests.unit.workers.supervisor.fakes import Server, begin, make_children


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
