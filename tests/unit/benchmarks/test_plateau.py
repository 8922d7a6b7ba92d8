"""The steps of ``bin/bench plateau``, on rates that are known."""

from __future__ import annotations

from benchmarks.plateau import climb, plateau_of


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
