"""Number and delay of the retries under Dramatiq's own options."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.broker.topology import RetryPolicy
from switchyard.middleware.retries import bounds_of, delay_of, is_never_retried, is_retried, max_retries_of, span_of

POLICY = RetryPolicy(max_retries=3, base_ms=1_000, cap_ms=60_000)
ERROR = RuntimeError("no")


def given(**options: Any) -> Any:
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
    assert max_retries_of(given(**of_message), given(**of_actor), POLICY) == most


def test_retry_when_decides_alone_with_the_retries_so_far() -> None:
    asked: list[Any] = []

    def decides(retries: int, exception: BaseException) -> bool:
        asked.append((retries, exception))
        return retries < 5

    actor = given(retry_when=decides, max_retries=1)

    assert [is_retried(given(), actor, POLICY, ERROR, retry) for retry in (1, 5, 6)] == [True, True, False]
    assert asked == [(0, ERROR), (4, ERROR), (5, ERROR)]


def test_a_retry_when_that_fails_leaves_the_decision_to_the_number() -> None:
    actor = given(retry_when=lambda retries, exception: 1 / 0, max_retries=1)

    assert [is_retried(given(), actor, POLICY, ERROR, retry) for retry in (1, 2)] == [True, False]


@pytest.mark.parametrize("classes", [KeyError, (KeyError,), [ValueError, KeyError]])
def test_exceptions_in_throws_are_never_retried(classes: Any) -> None:
    assert is_never_retried(given(throws=classes), KeyError("a"), "throws")
    assert not is_never_retried(given(throws=classes), RuntimeError("a"), "throws")


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
    assert bounds_of(of_message, given(**of_actor), POLICY) == bounds


def test_a_delay_between_bounds_doubles_from_the_least_and_keeps_below_the_most() -> None:
    for _ in range(100):
        delays = [delay_of(retry, POLICY, ERROR, bounds=(10, 100)) for retry in range(1, 7)]

        assert 10 <= delays[0] <= 20
        assert 20 <= delays[1] <= 40
        assert all(50 <= delay <= 100 for delay in delays[4:])


def test_the_span_of_an_actor_counts_its_bounds_and_a_thousand_of_endless_retries() -> None:
    assert span_of(given(min_backoff=10, max_backoff=100, max_retries=4), POLICY) == (
        10 + 20 + 40 + 50,
        20 + 40 + 80 + 100,
    )
    assert span_of(given(max_retries=None, min_backoff=100, max_backoff=100), POLICY) == (1_000 * 50, 1_000 * 100)
