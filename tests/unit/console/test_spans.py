"""Spans of retries promise no more time than there is."""

from __future__ import annotations

import pytest

from switchyard.console.formatting import retries_text, rough_duration


@pytest.mark.parametrize(
    ("ms", "down", "up"),
    [
        (80.5, "80 ms", "81 ms"),
        (30_999.5, "30 s", "31 s"),
        (59_999, "59 s", "1 min"),
        (6_176_000, "1 h 42 min", "1 h 43 min"),
        (7_200_000, "2 h", "2 h"),
        (35_999_999, "9 h 59 min", "10 h"),
        (86_399_999, "23 h", "1 day"),
        (131_000_000, "1 day 12 h", "1 day 13 h"),
        (900_000_000, "10 days", "11 days"),
    ],
)
def test_a_span_is_rounded_to_the_cautious_side(ms: float, down: str, up: str) -> None:
    assert (rough_duration(ms, up=False), rough_duration(ms, up=True)) == (down, up)


def test_the_least_span_of_retries_is_never_printed_longer_than_it_is() -> None:
    assert retries_text(12, (6_176_000, 12_352_000)) == "12 retries over 1 h 42 min to 3 h 26 min"
    assert retries_text(3, (90_500, 90_500)) == "3 retries over 1 min 30 s"
