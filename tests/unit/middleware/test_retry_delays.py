"""Backoff with equal jitter, caps, and those who say when to come back."""

from __future__ import annotations

from typing import Any

import pytest
from dramatiq.errors import Retry
from hypothesis import given
from hypothesis import strategies as st

from switchyard.broker.topology import RetryPolicy
from switchyard.middleware.errors import RetryLater
from switchyard.middleware.retries import delay_of

ERROR = RuntimeError("no")
DELAYS = st.lists(st.integers(0, 36_000_000), min_size=1, max_size=8)


@given(retry=st.integers(1, 10_000), base_ms=st.integers(1, 60_000), over_base_ms=st.integers(0, 3_600_000))
def test_a_delay_is_between_half_of_the_doubled_and_capped_base_and_all_of_it(
    retry: int, base_ms: int, over_base_ms: int
) -> None:
    cap_ms = base_ms + over_base_ms
    policy = RetryPolicy(base_ms=base_ms, cap_ms=cap_ms)

    delay_ms = delay_of(retry, policy, ERROR)

    longest_ms = min(cap_ms, base_ms * 2 ** (retry - 1))
    assert longest_ms // 2 <= delay_ms <= longest_ms


@given(delays_ms=DELAYS, retry=st.integers(1, 20))
def test_a_named_delay_has_the_same_jitter_and_the_last_one_repeats(delays_ms: list[int], retry: int) -> None:
    longest_ms = delays_ms[min(retry, len(delays_ms)) - 1]

    delay_ms = delay_of(retry, RetryPolicy(delays_ms=tuple(delays_ms)), ERROR)

    assert longest_ms // 2 <= delay_ms <= longest_ms


@given(delay_s=st.floats(0, 86_400, allow_nan=False))
def test_retry_after_is_a_lower_bound(delay_s: float) -> None:
    delay_ms = delay_of(1, RetryPolicy(base_ms=500), RetryLater(delay_s, "later"))

    assert int(delay_s * 1000) <= delay_ms <= int(delay_s * 1000) + 500 or 250 <= delay_ms <= 500


@pytest.mark.parametrize("delay_s", ["5", None, float("nan"), float("inf")])
def test_a_time_that_is_no_number_of_seconds_is_refused(delay_s: Any) -> None:
    with pytest.raises(ValueError, match=r"^RetryLater: delay_s is .*; write a number of seconds"):
        RetryLater(delay_s, "busy")


def test_retry_after_a_second_does_not_shorten_a_schedule_of_hours() -> None:
    policy = RetryPolicy(delays_ms=(5_000, 300_000, 7_200_000))

    delays_ms = [delay_of(retry, policy, RetryLater(1, "busy")) for retry in (1, 2, 3)]

    assert delays_ms[1] >= 150_000
    assert delays_ms[2] >= 3_600_000


def test_a_delay_that_the_actor_itself_names_goes_before_the_policy() -> None:
    policy = RetryPolicy(delays_ms=(1_000, 7_200_000))

    assert 30_000 <= delay_of(2, policy, Retry("not yet", delay=30_000)) <= 31_000


def test_own_functions_are_taken_as_they_are_and_the_actors_goes_first() -> None:
    policy = RetryPolicy(backoff=lambda retry: retry * 7)

    assert delay_of(3, policy, ERROR) == 21
    assert delay_of(3, policy, ERROR, lambda retry: 1_000_000_000) == 1_000_000_000


def test_a_hurried_yard_divides_the_delays_of_policies_and_functions_and_none_that_a_server_asked_for() -> None:
    policy = RetryPolicy(delays_ms=(7_200_000,))

    assert 3_600 <= delay_of(1, policy, ERROR, speed=1_000) <= 7_200
    assert delay_of(1, policy, ERROR, lambda retry: 60_000, speed=1_000) == 60
    assert 60_000 <= delay_of(1, policy, RetryLater(60, "busy"), speed=1_000) <= 67_200
