"""``processes="cores"`` stands for what affinity, quota and memory allow, and children are counted in one place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from switchyard.broker.topology import SUPERVISOR_BYTES, Pool, Queue, Yard

MB = 1_000_000
QUEUE = Queue("sums", objective_ms=None, soft_limit_ms=1_000, hard_limit_ms=2_000)
SUMS = Pool("sums", "processes", ("sums",), processes="cores", slots=1, isolated=2, memory_limit_bytes=100 * MB)
FIXED = Pool("retries", "threads", (), processes=3, slots=2, shared_retries=True)


@pytest.mark.parametrize(
    ("cores", "memory_bytes", "children"),
    [
        (8, None, 8),
        (8, SUPERVISOR_BYTES + 7 * 100 * MB, 4),  # one successor and two isolated ones beside them
        (8, SUPERVISOR_BYTES + 7 * 100 * MB - 1, 3),
        (2, 10**12, 2),
        (8, 10 * MB, 1),
    ],
)
def test_there_are_as_many_children_as_cores_and_memory_carry_and_at_least_one(
    cores: int, memory_bytes: int | None, children: int
) -> None:
    assert SUMS.children_on(cores, memory_bytes) == children


def test_pinned_pool_has_no_more_children_than_cpus() -> None:
    assert replace(SUMS, cpus=(2, 3)).children_on(8, None) == 2


def test_pool_of_cores_is_resolved_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.broker.topology.cores_here", lambda: 6)
    monkeypatch.setattr("switchyard.broker.topology.memory_here", lambda: None)

    assert (SUMS.children, SUMS.total_slots, SUMS.most_running, SUMS.most_children) == (6, 6, 9, 9)


def test_yard_on_a_number_of_cores_resolves_only_the_pools_of_cores() -> None:
    yard = Yard((QUEUE,), (SUMS, FIXED)).with_cores(5)

    assert [pool.children for pool in yard.pools] == [5, 3]
    assert yard.pools[0].per_core and yard.pools[0].most_memory_bytes == SUPERVISOR_BYTES + 8 * 100 * MB
    assert yard.pools[1] is FIXED and FIXED.most_memory_bytes is None


def test_kind_decides_how_many_isolated_children_a_pool_may_have_that_says_nothing() -> None:
    assert [replace(FIXED, kind=kind).most_isolated for kind in ("threads", "processes", "gevent")] == [4, 4, 2]
