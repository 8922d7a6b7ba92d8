from __future__ import annotations

from datetime import UTC, datetime

import pytest

from switchyard.console.formatting import between, duration, promise, size, times


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (11, "11 ms"),
        (3_800, "3.8 s"),
        (9_949, "9.9 s"),
        (9_960, "10 s"),
        (41_000, "41 s"),
        (59_600, "1 min 00 s"),
        (62_000, "1 min 02 s"),
        (7_500_000, "2 h 05 min"),
        (86_400_000, "1 day"),
        (300_000_000, "3 days"),
    ],
)
def test_time_spans_read_like_speech(ms: float, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (80, "start in 80 ms"),
        (1_000, "start in 1 s"),
        (1_500, "start in 1.5 s"),
        (12_345, "start in 12.345 s"),
        (300_000, "start in 5 min"),
        (90_000, "start in 90 s"),
        (7_200_000, "start in 2 h"),
        (None, "no promise"),
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
