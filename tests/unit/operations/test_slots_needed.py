"""Slots that a pool needs, by the formula and against a simulated queue."""

from __future__ import annotations

import math

import pytest

from switchyard.operations.plan import OWN_S, Demand, PoolSnapshot, needed, simulate, slots_for


def late_share(slots: int, load: float, duration_s: float, promise_s: float) -> float:
    """Return the share of messages of simulated queues that start later than promised."""
    runs_s = tuple(-math.log(1 - (n + 0.5) / 400) * duration_s for n in range(400))
    demand = Demand((load / (duration_s + OWN_S),) * 1_000, runs_s)
    waits = [wait_s for seed in range(16) for wait_s in simulate(demand, slots, seed=seed)]
    return sum(wait_s > promise_s for wait_s in waits) / len(waits)


@pytest.mark.parametrize(
    ("load", "duration_s", "promise_s"), [(0.5, 0.05, 0.08), (3.2, 0.4, 1.0), (12.0, 0.2, 1.0), (40.0, 10.0, 10.0)]
)
def test_slots_keep_the_promise_of_a_simulated_queue_and_one_less_does_not(
    load: float, duration_s: float, promise_s: float
) -> None:
    slots = slots_for(load, duration_s, promise_s)

    # Busy queues are late in streaks: a simulation as short as this is off by half.
    assert late_share(slots, load, duration_s, promise_s) < 0.015
    assert slots - 1 <= load or late_share(slots - 1, load, duration_s, promise_s) > 0.01


def test_idle_pool_needs_one_slot_and_one_without_a_promise_keeps_up() -> None:
    assert slots_for(0.0, 0.0, 0.08) == 1
    assert slots_for(3.0, 1.0, None) == 4


def snapshot(at_s: float, ended: int, busy_s: float, *, waiting: int = 0, busy: int = 0) -> PoolSnapshot:
    return PoolSnapshot(at_s, {"web:here:7": (ended, busy_s)}, waiting, busy)


def test_mean_of_busy_slots_is_the_load_while_nothing_waits() -> None:
    last = snapshot(60.0, 600, 120.0, busy=2)  # 10/s of 0.2 s each: 2 slots

    assert needed(snapshot(0.0, 0, 0.0), last, 1.0) == slots_for(2.0, 0.2, 1.0)


def test_backlog_that_grows_asks_for_the_slots_that_end_it_within_a_minute() -> None:
    # 4 slots end 20/s of 0.2 s each, 30/s arrive: 6 slots keep up, 2 more drain what waits within a minute.
    last = snapshot(60.0, 1_200, 240.0, waiting=600, busy=4)

    assert needed(snapshot(0.0, 0, 0.0), last, 1.0) == 8


def test_backlog_that_shrinks_asks_for_less_than_the_slots_that_drain_it() -> None:
    last = snapshot(60.0, 1_200, 240.0, waiting=0, busy=4)

    assert needed(snapshot(0.0, 0, 0.0, waiting=600), last, 1.0) == slots_for(2.0, 0.2, 1.0)


def test_long_jobs_of_which_none_ended_count_with_the_time_that_they_have_run() -> None:
    last = snapshot(60.0, 0, 120.0, waiting=2, busy=2)

    assert needed(snapshot(0.0, 0, 0.0, busy=2), last, 300.0) == 5


def test_supervisor_that_started_since_is_not_judged() -> None:
    other = PoolSnapshot(60.0, {"web:here:8": (9, 1.0)}, 0, 0)

    assert needed(snapshot(0.0, 0, 0.0), other, 1.0) is None
