"""Cron expressions: when they are due, held against a search minute by minute, and in words."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from periodiq import cron

from switchyard.schedules.registry import Cron, minute_of

MINUTE = datetime.timedelta(minutes=1)
REPEATABLE = settings(derandomize=True, deadline=None, max_examples=40)


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("spec", "after", "expected"),
    [
        ("* * * * *", "2026-11-20T08:30", "2026-11-20T08:31"),
        ("15 2 * * *", "2026-11-20T02:14", "2026-11-20T02:15"),
        ("15 2 * * *", "2026-11-20T02:15", "2026-11-21T02:15"),
        ("*/10 * * * *", "2026-11-20T23:51", "2026-11-21T00:00"),
        ("0 0 1 1 *", "2026-11-20T00:00", "2027-01-01T00:00"),
        ("0 0 29 2 *", "2026-11-20T00:00", "2028-02-29T00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00", "2104-02-29T00:00"),
        ("0 0 31 * *", "2026-11-20T00:00", "2026-12-31T00:00"),
        ("0 3 * * mon", "2026-11-20T00:00", "2026-11-23T03:00"),
        ("0 3 * * sun", "2026-11-20T00:00", "2026-11-22T03:00"),
        ("0 3 * * 0", "2026-11-20T00:00", "2026-11-22T03:00"),
        ("0 3 * * 7", "2026-11-20T00:00", "2026-11-22T03:00"),
        ("0 3 * * 0-6", "2026-11-22T00:00", "2026-11-22T03:00"),
        ("@weekly", "2026-11-20T00:00", "2026-11-22T00:00"),
        ("0 0 13 * fri", "2026-11-21T00:00", "2026-11-27T00:00"),
        ("0 12 * 6 *", "2026-11-20T00:00", "2027-06-01T12:00"),
    ],
)
def test_the_next_tick(spec, after, expected):
    assert Cron.of(cron(spec)).next(at(after)) == at(expected)


@pytest.mark.parametrize("spec", ["0 0 30 2 *", "99 2 * * *", "0 25 * * *"])
def test_a_schedule_that_is_never_due_has_no_next_tick(spec):
    assert Cron.of(cron(spec)).next(at("2026-11-20T00:00")) is None


fields = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
values = [
    st.one_of(st.just("*"), st.lists(st.integers(*span), min_size=1, max_size=4).map(lambda v: ",".join(map(str, v))))
    for span in fields
]
specs = st.tuples(*values).map(" ".join)
moments = st.integers(0, 8 * 365 * 24 * 3600).map(lambda s: at("2024-01-01T00:00") + datetime.timedelta(seconds=s))


@REPEATABLE
@given(spec=specs, moment=moments)
def test_ticks_back_are_the_minutes_that_fit_newest_first(spec, moment):
    trigger = Cron.of(cron(spec))
    until = minute_of(moment)
    after = until - datetime.timedelta(days=2)

    minutes = (until - MINUTE * back for back in range(2 * 24 * 60))
    assert list(trigger.back(after, until)) == [minute for minute in minutes if trigger.spec.validate(minute)]


@REPEATABLE
@given(spec=specs, moment=moments)
def test_the_next_tick_is_later_and_no_minute_before_it_fits(spec, moment):
    trigger = Cron.of(cron(spec))

    found = trigger.next(moment)

    if found is not None:
        assert found > moment and trigger.spec.validate(found)
        first = minute_of(moment) + MINUTE
        looked_at = range(min(int((found - first) / MINUTE), 1500))
        assert not any(trigger.spec.validate(first + MINUTE * step) for step in looked_at)
