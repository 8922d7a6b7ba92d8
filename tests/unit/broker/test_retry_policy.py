"""Retry policies: delays by doubling or by name, the span that they take, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from switchyard.broker.errors import InvalidDeclaration
from switchyard.broker.topology import Queue, RetryPolicy, Yard

HOUR = 3_600_000


def test_the_default_lasts_for_hours() -> None:
    policy = RetryPolicy()

    least_ms, most_ms = policy.span_ms()

    assert policy.retries == 12
    assert policy.longest_ms(1) == 5_000
    assert (least_ms, most_ms) == (6_157_500, 12_315_000)


def test_named_delays_say_how_often_and_when() -> None:
    policy = RetryPolicy(delays_ms=(5_000, 300_000))

    assert policy.retries == 2
    assert [policy.longest_ms(retry) for retry in (1, 2, 3)] == [5_000, 300_000, 300_000]
    assert policy.span_ms() == (152_500, 305_000)
    assert policy.span_ms(retries=3) == (302_500, 605_000)
    assert policy.span_ms(retries=0) == (0, 0)


def test_a_function_counts_as_it_answers_and_a_failing_one_as_the_policys_delays() -> None:
    policy = RetryPolicy(max_retries=3, base_ms=1_000, backoff=lambda retry: retry * 10)

    assert policy.span_ms() == (60, 60)
    assert policy.span_ms(backoff=lambda retry: 5) == (15, 15)
    assert RetryPolicy(max_retries=2, base_ms=1_000).span_ms(backoff=lambda retry: 1 // 0) == (1_500, 3_000)


@pytest.mark.parametrize("value", [5_000, [5_000], (-1,), (1.5,), ("5000",), (True,), (10**15,), None])
def test_delays_that_cannot_be_used_are_refused(value: Any) -> None:
    with pytest.raises(InvalidDeclaration, match=r"delays_ms is .* one for each retry, such as"):
        RetryPolicy(delays_ms=value)


@pytest.mark.parametrize(
    ("option", "value"), [("max_retries", 3), ("base_ms", 1_000), ("cap_ms", HOUR * 2), ("backoff", lambda retry: 5)]
)
def test_what_named_delays_already_say_is_refused_beside_them(option: str, value: Any) -> None:
    with pytest.raises(InvalidDeclaration, match=rf"{option} is .*leave it out: delays_ms already says"):
        RetryPolicy(delays_ms=(5_000, 300_000), **{option: value})


def test_what_a_queue_calls_is_a_text_and_the_speed_of_a_yard_a_number() -> None:
    with pytest.raises(InvalidDeclaration, match="queue mail: calls is True"):
        Queue("mail", 1_000, 1_000, 2_000, calls=True)  # type: ignore[arg-type]
    with pytest.raises(InvalidDeclaration, match="yard: retry_speed is 0"):
        Yard((), (), retry_speed=0)
