"""Backoff with full jitter, caps, and those who say when to come back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.topology import RetryPolicy
from middleware.errors import RetryLater
from middleware.retries import delay_of

ERROR = RuntimeError("no")


@given(
    retry=st.integers(1, 10_000),
    base_ms=st.integers(1, 60_000),
    over_base_ms=st.integers(0, 3_600_000),
)
def test_a_delay_is_never_negative_nor_over_base_doubled_nor_over_the_cap(
    retry: int, base_ms: int, over_base_ms: int
) -> None:
    cap_ms = base_ms + over_base_ms
    policy = RetryPolicy(base_ms=base_ms, cap_ms=cap_ms)

    delay_ms = delay_of(retry, policy, ERROR)

    assert 0 <= delay_ms <= cap_ms
    assert delay_ms <= base_ms * 2 ** (retry - 1)


def test_jitter_is_full_it_reaches_both_ends() -> None:
    policy = RetryPolicy(base_ms=10, cap_ms=10)

    seen = {delay_of(1, policy, ERROR) for _ in range(2_000)}

    assert seen == set(range(11))


@given(delay_s=st.floats(0, 86_400, allow_nan=False))
def test_retry_after_is_a_lower_bound(delay_s: float) -> None:
    delay_ms = delay_of(1, RetryPolicy(base_ms=500), RetryLater(delay_s, "later"))

    assert int(delay_s * 1000) <= delay_ms <= int(delay_s * 1000) + 500


def test_own_functions_are_taken_as_they_are_and_the_actors_goes_first() -> None:
    policy = RetryPolicy(backoff=lambda retry: retry * 7)

    assert delay_of(3, policy, ERROR) == 21
    assert delay_of(3, policy, ERROR, lambda retry: 1_000_000_000) == 1_000_000_000
