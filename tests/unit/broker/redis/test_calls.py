"""Tries after failures are spaced, and no call waits for longer than it has."""

from __future__ import annotations

from itertools import pairwise

from broker.redis.calls import APART_S, LONGEST_S, Pace


def test_the_first_try_after_calm_waits_for_nobody() -> None:
    assert Pace().turn_s() <= APART_S / 4


def test_tries_of_many_threads_come_one_after_the_other_and_all_in_time() -> None:
    pace = Pace()

    turns = [pace.turn_s() for _ in range(50)]

    assert all(later - earlier >= APART_S / 2 for earlier, later in pairwise(turns[:4]))
    assert max(turns) <= LONGEST_S + APART_S / 4
