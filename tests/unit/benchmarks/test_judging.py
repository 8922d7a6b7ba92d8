"""Whether a target holds."""

from __future__ import annotations

import pytest

from benchmarks.judging import judge
from benchmarks.targets import EVERY_KEEPING_PEER, EVERY_PEER, EVERY_PYTHON_PEER, Limit, Ratio

DRAIN = "drain_1x8_per_s"


def over(peer: str, **bound: float) -> Ratio:
    return Ratio((DRAIN, "switchyard"), (DRAIN, peer), **bound)


def runs(**values: list[float | None]) -> dict[str, dict[str, list[float | None]]]:
    return {DRAIN: {name.replace("_", "-"): of for name, of in values.items()}}


@pytest.mark.parametrize(
    ("ours", "holds"),
    [([90, 100, 110, 120, 130], True), ([90, 90, 90, 200, 200], True), ([89, 89, 100, 100, 100], False)],
)
def test_a_ratio_holds_when_its_lower_quartile_is_within_a_tenth(ours: list[float], holds: bool) -> None:
    found = judge(over("dramatiq", at_least=10), runs(switchyard=ours, dramatiq=[10.0] * 5))

    assert found.holds is holds
    assert found.decides


@pytest.mark.parametrize(("ours", "holds"), [([0.75, 0.8, 0.83], True), ([0.7, 0.7, 1.2], False)])
def test_a_ratio_that_is_to_stay_low_is_judged_by_its_upper_quartile(ours: list[float], holds: bool) -> None:
    found = judge(over("dramatiq", at_most=0.75), runs(switchyard=ours, dramatiq=[1.0] * 3))

    assert found.holds is holds


def test_pairs_are_runs_of_one_round() -> None:
    values = runs(switchyard=[10.0, 200.0, 30.0], dramatiq=[1.0, 100.0, 3.0])

    assert judge(over("dramatiq", at_least=9), values).median == pytest.approx(10)


@pytest.mark.parametrize(
    ("group", "best"), [(EVERY_PEER, "bullmq"), (EVERY_PYTHON_PEER, "huey"), (EVERY_KEEPING_PEER, "bullmq")]
)
def test_the_best_of_a_group_is_found_and_named(group: str, best: str) -> None:
    values = runs(switchyard=[100], switchyard_stack=[90], dramatiq=[10], huey=[40], bullmq=[50])

    found = judge(over(group, at_least=1), values)

    assert f"({best})" in found.target
    assert found.median == 100 / values[DRAIN][best][0]  # type: ignore[operator]


def test_a_peer_that_loses_work_is_no_rival_where_keeping_counts() -> None:
    values = runs(switchyard=[100], dramatiq=[10], huey=[40])

    assert "(dramatiq)" in judge(over(EVERY_KEEPING_PEER, at_least=1), values).target


def test_a_limit_holds_by_its_median_and_leaves_the_exit_code_alone() -> None:
    values = {"idle_p50_ms": {"switchyard": [0.8, 0.9, 5.0]}}

    found = judge(Limit("idle_p50_ms", "switchyard", at_most=1.0), values)

    assert (found.holds, found.decides, found.median) == (True, False, 0.9)
    assert judge(Limit("idle_p50_ms", "switchyard", at_most=0.8), values).holds is False


@pytest.mark.parametrize("target", [over("dramatiq", at_least=9), over(EVERY_PEER, at_least=1), Limit("x", "y", 1)])
def test_what_was_not_measured_is_neither_held_nor_missed(target: Ratio | Limit) -> None:
    found = judge(target, {DRAIN: {"switchyard": [None], "dramatiq": [1.0]}})

    assert (found.median, found.holds) == (None, None)


def test_a_ratio_may_be_of_two_figures_of_one_peer() -> None:
    values = {"deep_us": {"switchyard": [11.0]}, "shallow_us": {"switchyard": [10.0]}}
    target = Ratio(("deep_us", "switchyard"), ("shallow_us", "switchyard"), at_most=1.2)

    found = judge(target, values)

    assert found.holds is True
    assert found.target == "switchyard: deep_us ≤ 1.2 × shallow_us"
