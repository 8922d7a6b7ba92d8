"""Plans: the simulated queue, and slots by it or by the formula."""

import math
import random
from dataclasses import replace
from statistics import mean

import pytest

from project.topology import YARD
from switchyard.broker.stores.yard_facts import DEPTH, RUN_MS, RUNS, WAITS
from switchyard.operations import plan as planning
from switchyard.operations.plan import Demand, least_slots, simulate, slots_for, together

EXPONENTIAL = tuple(-math.log(1 - (n + 0.5) / 400) for n in range(400))


@pytest.mark.parametrize(("slots", "load"), [(2, 1.2), (6, 4.0), (12, 9.0)])
def test_the_simulated_queue_is_late_as_often_as_erlangs_formula_says(slots, load):
    blocked = 1.0
    for number in range(1, slots + 1):
        blocked = load * blocked / (number + load * blocked)
    waits = slots * blocked / (slots - load * (1 - blocked))
    expected = waits * math.exp(-(slots - load) * 0.3)

    found = [wait_s for seed in range(20) for wait_s in simulate(Demand((load,) * 60, EXPONENTIAL), slots, seed=seed)]

    assert sum(wait_s > 0.3 for wait_s in found) / len(found) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("promise_s", [0.08, 0.5, 3.0])
def test_named_slots_keep_the_promise_in_most_stretches_and_one_less_in_fewer(promise_s):
    demand = Demand((20.0,) * 10, planning.by_percentiles(0.08, 0.4))

    named = least_slots(demand, promise_s)

    assert named.kept >= 0.9
    assert named.slots - 1 <= demand.load or planning.outlook(demand, named.slots - 1, promise_s).kept < 0.9
    assert named.p95_s[0] <= promise_s


def test_a_burst_needs_more_than_its_mean_and_a_plan_is_the_same_each_time():
    steady = Demand((10.0,) * 10, planning.by_percentiles(0.1, 0.4))
    burst = replace(steady, rates=(5.0, 55.0, *(5.0,) * 8))

    named = least_slots(burst, 1.0)

    assert named.slots > least_slots(steady, 1.0).slots
    assert named == least_slots(burst, 1.0)
    assert (burst.busiest(1).rates, sum(burst.busiest(2).rates)) == ((55.0,), 60.0)


def test_without_a_promise_or_with_one_longer_than_the_stretch_the_slots_keep_up():
    found = least_slots(Demand((10.0,), (0.3,)), None)

    assert (found.slots, found.late, found.kept) == (4, 0.0, 1.0)
    assert (least_slots(Demand((10.0,), (1.0,)), 3_600.0).slots, slots_for(0.0, 0.0, 0.08)) == (11, 1)
    assert slots_for(3.0, 1.0, None) == 4


def test_counted_run_times_keep_their_mean_and_classes_and_arrivals_are_what_started_and_what_waits_more():
    runs_s = planning.by_counts({RUNS + 3: 90, RUNS + 9: 10, RUN_MS: 90 * 30 + 10 * 2_000})

    assert mean(runs_s) == pytest.approx(0.227)
    assert sum(run_s > 0.1 for run_s in runs_s) / len(runs_s) == pytest.approx(0.1, abs=0.01)
    assert planning.by_counts({}) == (0.0,)
    minutes = [{WAITS: 60, DEPTH: 0}, {WAITS: 60, DEPTH: 120}, {WAITS: 120, DEPTH: 30}, {WAITS: 30}, {}]

    assert planning.counted(minutes).rates == (1.0, 3.0, 0.5, 0.0, 0.0)


def test_lanes_of_a_pool_mix_by_what_arrives():
    mixed = together([Demand((3.0, 3.0), (0.1,)), Demand((1.0,), (1.0,))])

    assert mixed.rates == (4.0, 3.0)
    assert mixed.run_s == pytest.approx(0.1 * 6 / 7 + 1 / 7, rel=0.02)
    assert together([Demand((0.0,), (0.1,))]).rates == (0.0,)


def test_each_pool_is_planned_for_its_own_lanes():
    lanes = {"default": Demand((20.0,), (0.1,)), "webhook": Demand((0.0,), (0.1,))}
    lanes["default-retry"] = Demand((1.0,), (1.0,))

    plans = {each.pool.name: each for each in planning.plan(YARD, lanes, minutes=1)}

    assert list(plans) == ["default", "webhook", "retries"]
    assert (plans["default"].promise_s, plans["default"].lanes) == (1.0, ("default",))
    assert plans["default"].declared.slots == 8
    assert (plans["webhook"].named.slots, plans["webhook"].fewer) == (1, None)
    assert (plans["retries"].promise_s, plans["retries"].named.slots) == (None, 2)
    assert plans["retries"].processes == 1
    assert {each.promise_s for each in planning.plan(YARD, lanes, 0.5, minutes=1)} == {0.5}


def test_servers_are_a_range_from_messages_in_batches_to_single_ones():
    assert (planning.places_for(100.0), planning.places_for(20_000.0), planning.places_for(150_000.0)) == (
        (1, 1),
        (1, 5),
        (5, 37),
    )


def test_stretches_differ_by_seed():
    demand, chance = Demand((5.0,), (0.5,)), random.Random(1)
    first, second = (simulate(demand, 3, seed=chance.randrange(planning.STRETCHES)) for _ in range(2))

    assert first != second


def late_share(slots: int, load: float, duration_s: float, promise_s: float) -> float:
    """Return the share of messages of simulated queues that start later than promised."""
    runs_s = tuple(-math.log(1 - (n + 0.5) / 400) * duration_s for n in range(400))
    demand = Demand((load / (duration_s + planning.OWN_S),) * 1_000, runs_s)
    waits = [wait_s for seed in range(16) for wait_s in simulate(demand, slots, seed=seed)]
    return sum(wait_s > promise_s for wait_s in waits) / len(waits)


@pytest.mark.parametrize(
    ("load", "duration_s", "promise_s"), [(0.5, 0.05, 0.08), (3.2, 0.4, 1.0), (12.0, 0.2, 1.0), (40.0, 10.0, 10.0)]
)
def test_slots_keep_a_simulated_promise_and_one_less_does_not(load, duration_s, promise_s):
    slots = slots_for(load, duration_s, promise_s)

    # Busy queues are late in streaks: a simulation as short as this is off by half.
    assert late_share(slots, load, duration_s, promise_s) < 0.015
    assert slots - 1 <= load or late_share(slots - 1, load, duration_s, promise_s) > 0.01


def snapshot(at_s: float, ended: int, busy_s: float, *, waiting: int = 0, busy: int = 0) -> planning.PoolSnapshot:
    return planning.PoolSnapshot(at_s, {"web:here:7": (ended, busy_s)}, waiting, busy)


@pytest.mark.parametrize(
    ("first", "last", "promise_s", "slots"),
    [
        (snapshot(0.0, 0, 0.0), snapshot(60.0, 600, 120.0, busy=2), 1.0, slots_for(2.0, 0.2, 1.0)),
        # 4 slots end 20/s of 0.2 s each, 30/s arrive: 6 slots keep up, 2 more drain what waits within a minute.
        (snapshot(0.0, 0, 0.0), snapshot(60.0, 1_200, 240.0, waiting=600, busy=4), 1.0, 8),
        (snapshot(0.0, 0, 0.0, waiting=600), snapshot(60.0, 1_200, 240.0, busy=4), 1.0, slots_for(2.0, 0.2, 1.0)),
        (snapshot(0.0, 0, 0.0, busy=2), snapshot(60.0, 0, 120.0, waiting=2, busy=2), 300.0, 5),
        (snapshot(0.0, 0, 0.0), planning.PoolSnapshot(60.0, {"web:here:8": (9, 1.0)}, 0, 0), 1.0, None),
    ],
    ids=["nothing waits", "a backlog grows", "it shrinks", "long jobs, none has ended", "a supervisor started since"],
)
def test_slots_are_needed_for_the_load_and_to_drain_what_waits_within_a_minute(first, last, promise_s, slots):
    assert planning.needed(first, last, promise_s) == slots
