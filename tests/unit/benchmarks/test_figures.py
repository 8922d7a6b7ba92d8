"""The statistics behind every figure."""

from __future__ import annotations

import pytest

from benchmarks.figures import drain_rate, quantile, quartiles, ratios, spread, waits
from benchmarks.plateau import climb, plateau_of
from benchmarks.records import Record


def starts(*times: tuple[float, int]) -> list[Record]:
    return [Record(0.0, started_s, worker, number) for number, (started_s, worker) in enumerate(times)]


def test_quartiles_lie_between_the_runs() -> None:
    assert quartiles([5, 1, 3, 2, 4]) == (2, 3, 4)
    assert quartiles([1, 2]) == (1.25, 1.5, 1.75)
    assert quartiles([7]) == (7, 7, 7)


def test_a_spread_needs_at_least_one_run() -> None:
    row = spread([4, 2, 9])

    assert (row.lowest, row.median, row.highest, row.runs) == (2, 4, 9, 3)
    with pytest.raises(ValueError, match="no run"):
        spread([])


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)])
def test_a_quantile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert quantile(list(range(100, 0, -1)), share) == expected


def test_ratios_pair_runs_of_one_round_and_leave_out_failed_ones() -> None:
    assert ratios([10.0, None, 30.0, 8.0], [5.0, 5.0, None, 2.0]) == [2.0, 4.0]
    assert ratios([10.0, 20.0], [5.0]) == [2.0]


def test_waits_are_milliseconds_from_sending_to_the_start() -> None:
    records = [Record(10.0, 10.0 + ms / 1000, 0, ms) for ms in range(1, 101)]

    found = waits("idle", records)

    assert found["idle_p50_ms"] == pytest.approx(50)
    assert found["idle_p99_ms"] == pytest.approx(99)
    assert found["idle_max_ms"] == pytest.approx(100)


def test_a_drain_counts_from_its_first_fifth_to_its_last_start() -> None:
    records = starts(*((second / 10, 0) for second in range(101)))

    assert drain_rate(records) == pytest.approx(10)


def test_a_drain_counts_only_while_every_worker_runs() -> None:
    alone = [(second / 10, 0) for second in range(50)]
    together = [(5 + second / 20, second % 2) for second in range(101)]

    assert drain_rate(starts(*alone, *together)) == pytest.approx(20, rel=0.02)


def test_a_drain_that_ended_before_every_worker_ran_has_no_rate() -> None:
    assert drain_rate(starts((0.0, 0), (1.0, 0), (2.0, 1))) == 0.0


def test_slots_double_until_a_step_gains_less_than_a_tenth() -> None:
    steps = climb(lambda slots: 100.0 * min(slots, 12), 128)

    assert steps == [(1, 100.0), (2, 200.0), (4, 400.0), (8, 800.0), (16, 1_200.0), (32, 1_200.0)]
    assert plateau_of(steps) == 16


def test_work_that_never_gains_has_its_plateau_at_one_slot() -> None:
    steps = climb(lambda slots: 50.0 - slots, 128)

    assert [slots for slots, _ in steps] == [1, 2]
    assert plateau_of(steps) == 1


def test_climb_ends_where_it_is_told_to() -> None:
    assert [slots for slots, _ in climb(float, 8)] == [1, 2, 4, 8]
