"""Replacement of children by age."""

from __future__ import annotations

import math

from apps.platform.workers.supervisor.recycling import POLL_SUCCESSOR_S, Recycling
from broker.topology import Pool
from tests.unit.workers.supervisor.fakes import Server, make_children


def test_a_pause_in_the_middle_of_a_replacement_does_not_end_all_replacements() -> None:
    pool = Pool("work", queues=("work",), kind="threads", processes=1, slots=1, recycle_after=10)
    children = make_children(pool, Server())
    recycling = Recycling(children)
    children.own[0].pid = 2**22  # beyond the largest pid
    row = children.rows[1]
    row.lease(math.inf if False else 9e8)
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
