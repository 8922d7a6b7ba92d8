"""Ranges of when a job starts, on simulated pools: nine of ten hold, whatever the slots and the place."""

from __future__ import annotations

import random

import pytest

from switchyard.jobs.passport.why import LEAST_STARTS, expected
from tests.factories.slots import worked

DRAWS = 1_200


def test_nine_of_ten_ranges_hold() -> None:
    draw, held, asked = random.Random(11), 0, 0
    by_place: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(DRAWS):
        work = worked(draw)
        started = sorted([*(start for start, _ in work.ended), *work.running])
        found = expected(started, work.ahead + 1, 0)
        if found is not None:
            asked += 1
            holds = found[0] <= work.starts_at <= found[1]
            held += holds
            by_place[work.ahead > 10].append(holds)

    assert asked > 0.99 * DRAWS
    assert 0.87 <= held / asked <= 0.93
    assert all(0.85 <= sum(each) / len(each) <= 0.95 for each in by_place.values())


@pytest.mark.parametrize(
    ("started", "at"),
    [
        ([], 0),
        ([1_000 * place for place in range(LEAST_STARTS)], 9_000),
        ([5] * 50, 10),
        ([1_000 * place for place in range(60)], 600_000),  # nothing has started for ten minutes
    ],
)  # fmt: skip
def test_without_a_rate_nothing_is_expected(started: list[int], at: int) -> None:
    assert expected(started, 3, at) is None
