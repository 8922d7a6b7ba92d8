"""Months are read strictly, and their bounds hold over the turn of a year."""

from __future__ import annotations

import datetime

import pytest

from apps.shop import months


@pytest.mark.parametrize(
    "text", ["2026-13", "2026-00", "2026-1", "26-10", "2026/10", "0000-01", "2026-10-01", "٢٠٢٦-10", ""]
)
def test_a_month_that_does_not_exist_is_refused(text):
    with pytest.raises(ValueError, match="is not a month; write it as YYYY-MM"):
        months.first_day(text)


def test_bounds_end_where_the_next_month_begins():
    assert months.bounds("2026-10") == (datetime.date(2026, 10, 1), datetime.date(2026, 11, 1))
    assert months.bounds("2026-12") == (datetime.date(2026, 12, 1), datetime.date(2027, 1, 1))


def test_the_last_month_of_the_calendar_has_no_bounds():
    with pytest.raises(ValueError, match="no day follows it"):
        months.bounds("9999-12")
