"""Number and delay of retries: backoff with equal jitter, caps, Dramatiq's own options, and those who say when."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from dramatiq.errors import Retry
from hypothesis import given
from hypothesis import strategies as st

from switchyard.broker.topology import RetryPolicy
from switchyard.middleware.errors import RetryLater
from switchyard.middleware.retries import bounds_of, delay_of, is_never_retried, is_retried, max_retries_of, span_of

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


POLICY = RetryPolicy(max_retries=3, base_ms=1_000, cap_ms=60_000)


def of(**options: Any) -> Any:
    return SimpleNamespace(actor_name="send_mail", options=options)


@pytest.mark.parametrize(
    ("of_message", "of_actor", "most"),
    [
        ({}, {}, 3),
        ({}, {"max_retries": 1}, 1),
        ({"max_retries": 0}, {"max_retries": 1}, 0),
        ({"max_retries": None}, {"max_retries": 1}, math.inf),
        ({}, {"max_retries": None}, math.inf),
        ({"max_retries": "many"}, {"max_retries": 1}, 1),
    ],
)
def test_the_messages_number_goes_before_the_actors_and_none_is_without_end(
    of_message: dict[str, Any], of_actor: dict[str, Any], most: float
) -> None:
    assert max_retries_of(of(**of_message), of(**of_actor), POLICY) == most


def test_retry_when_decides_alone_with_the_retries_so_far() -> None:
    asked: list[Any] = []

    def decides(retries: int, exception: BaseException) -> bool:
        asked.append((retries, exception))
        return retries < 5

    actor = of(retry_when=decides, max_retries=1)

    assert [is_retried(of(), actor, POLICY, ERROR, retry) for retry in (1, 5, 6)] == [True, True, False]
    assert asked == [(0, ERROR), (4, ERROR), (5, ERROR)]


def test_a_retry_when_that_fails_leaves_the_decision_to_the_number() -> None:
    actor = of(retry_when=lambda retries, exception: 1 / 0, max_retries=1)

    assert [is_retried(of(), actor, POLICY, ERROR, retry) for retry in (1, 2)] == [True, False]


@pytest.mark.parametrize("classes", [KeyError, (KeyError,), [ValueError, KeyError]])
def test_exceptions_in_throws_are_never_retried(classes: Any) -> None:
    assert is_never_retried(of(throws=classes), KeyError("a"), "throws")
    assert not is_never_retried(of(throws=classes), RuntimeError("a"), "throws")


@pytest.mark.parametrize(
    ("of_message", "of_actor", "bounds"),
    [
        ({}, {}, None),
        ({}, {"min_backoff": 10, "max_backoff": 500}, (10, 500)),
        ({}, {"min_backoff": 10}, (10, 60_000)),
        ({}, {"min_backoff": 100_000}, (100_000, 100_000)),
        ({}, {"max_backoff": 500}, (1_000, 500)),
        ({"min_backoff": 20}, {"min_backoff": 10, "max_backoff": 500}, (20, 500)),
        ({"min_backoff": 20}, {"backoff": lambda retry: 1}, (20, 60_000)),
        ({}, {"backoff": lambda retry: 1, "min_backoff": 10}, None),
        ({}, {"max_backoff": 30 * 24 * 3_600_000}, (1_000, 7 * 24 * 3_600_000)),
        ({"min_backoff": "long"}, {"min_backoff": 10}, (10, 60_000)),
    ],
)
def test_bounds_come_from_message_actor_and_policy(
    of_message: dict[str, Any], of_actor: dict[str, Any], bounds: tuple[int, int] | None
) -> None:
    assert bounds_of(of_message, of(**of_actor), POLICY) == bounds


def test_a_delay_between_bounds_doubles_from_the_least_and_keeps_below_the_most() -> None:
    for _ in range(100):
        delays = [delay_of(retry, POLICY, ERROR, bounds=(10, 100)) for retry in range(1, 7)]

        assert 10 <= delays[0] <= 20
        assert 20 <= delays[1] <= 40
        assert all(50 <= delay <= 100 for delay in delays[4:])


def test_the_span_of_an_actor_counts_its_bounds_and_a_thousand_of_endless_retries() -> None:
    assert span_of(of(min_backoff=10, max_backoff=100, max_retries=4), POLICY) == (
        10 + 20 + 40 + 50,
        20 + 40 + 80 + 100,
    )
    assert span_of(of(max_retries=None, min_backoff=100, max_backoff=100), POLICY) == (1_000 * 50, 1_000 * 100)
