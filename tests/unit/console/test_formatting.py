from __future__ import annotations

from datetime import UTC, datetime

import pytest

from switchyard.broker.errors import ActRefused
from switchyard.console.formatting import (
    between,
    duration,
    parse_until,
    promise,
    retries_text,
    rough_duration,
    size,
    times,
)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        *((0, "0 ms"), (11, "11 ms"), (3_800, "3.8 s"), (9_949, "9.9 s"), (9_960, "10 s"), (41_000, "41 s")),
        *((59_600, "1 min 00 s"), (62_000, "1 min 02 s"), (7_500_000, "2 h 05 min"), (86_400_000, "1 day")),
        (300_000_000, "3 days"),
    ],
)
def test_time_spans_read_like_speech(ms: float, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        *((80, "start in 80 ms"), (1_000, "start in 1 s"), (1_500, "start in 1.5 s"), (12_345, "start in 12.345 s")),
        *((300_000, "start in 5 min"), (90_000, "start in 90 s"), (7_200_000, "start in 2 h"), (None, "no promise")),
    ],
)
def test_promises_keep_their_unit(ms: int | None, text: str) -> None:
    assert promise(ms) == text


def test_sizes_and_ratios() -> None:
    assert (size(118_000_000), size(1_270_000_000)) == ("118 MB", "1.27 GB")
    assert (times(3.44), times(41.2), times(1_234)) == ("3.4 ×", "41 ×", "1,234 ×")


def test_two_times_name_their_day_once() -> None:
    first = datetime(2026, 11, 2, 3, 11, 47, tzinfo=UTC)

    assert between(first, first.replace(second=59)) == "2 Nov 2026 03:11 UTC"
    assert between(first, first.replace(hour=14)) == "2 Nov 2026 03:11 to 14:11 UTC"
    assert between(first, first.replace(day=12)) == "2 Nov 2026 03:11 to 12 Nov 2026 03:11 UTC"


@pytest.mark.parametrize(
    ("ms", "down", "up"),
    [
        *((80.5, "80 ms", "81 ms"), (30_999.5, "30 s", "31 s"), (59_999, "59 s", "1 min")),
        *((6_176_000, "1 h 42 min", "1 h 43 min"), (7_200_000, "2 h", "2 h"), (35_999_999, "9 h 59 min", "10 h")),
        *((86_399_999, "23 h", "1 day"), (131_000_000, "1 day 12 h", "1 day 13 h")),
        (900_000_000, "10 days", "11 days"),
    ],
)
def test_a_span_is_rounded_to_the_cautious_side(ms: float, down: str, up: str) -> None:
    assert (rough_duration(ms, up=False), rough_duration(ms, up=True)) == (down, up)


def test_the_least_span_of_retries_is_never_printed_longer_than_it_is() -> None:
    assert retries_text(12, (6_176_000, 12_352_000)) == "12 retries over 1 h 42 min to 3 h 26 min"
    assert retries_text(3, (90_500, 90_500)) == "3 retries over 1 min 30 s"


NOW = datetime(2026, 11, 21, 13, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", "2026-11-21T13:00:30+00:00"),
        ("30m", "2026-11-21T13:30:00+00:00"),
        ("30 min", "2026-11-21T13:30:00+00:00"),
        ("2h", "2026-11-21T15:00:00+00:00"),
        ("3d", "2026-11-24T13:00:00+00:00"),
        ("14:00", "2026-11-21T14:00:00+00:00"),
        ("13:00", "2026-11-22T13:00:00+00:00"),
        ("2026-11-21T14:00", "2026-11-21T14:00:00+00:00"),
        ("2026-11-21T16:00+02:00", "2026-11-21T16:00:00+02:00"),
    ],
)
def test_spans_times_of_day_and_iso_times_are_read(text: str, expected: str) -> None:
    assert parse_until(text, now=NOW).isoformat() == expected


@pytest.mark.parametrize("text", ["", "soon", "0s", "13", "24:00", "366d", "9999999d", "2026-11-21T12:59"])
def test_other_texts_are_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ActRefused, match="write a span"):
        parse_until(text, now=NOW)
