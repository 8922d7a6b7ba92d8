"""Ticks around changes of the clocks, held against a walk over the wall clock of each zone, minute by minute."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from hypothesis import given, settings
from hypothesis import strategies as st
from periodiq import cron

from switchyard.middleware.options import Periodic
from switchyard.schedules.models import StoredSchedule
from switchyard.schedules.registry import Cron, Every, Schedule, schedules
from switchyard.schedules.rows import schedule_of
from tests.factories.brokers import the_global_broker

MINUTE, DAY = datetime.timedelta(minutes=1), datetime.timedelta(days=1)
FIRST, LAST = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (2000, 2050))
# Changes at midnight, by half an hour, by two hours, by a day, around Ramadan, to another standard time, and none.
ZONES = (
    *("Europe/Berlin", "Europe/Dublin", "Europe/London", "Europe/Moscow", "America/New_York", "America/St_Johns"),
    *("America/Sao_Paulo", "America/Havana", "America/Santiago", "America/Caracas", "America/Asuncion", "Asia/Tehran"),
    *("Asia/Beirut", "Asia/Pyongyang", "Asia/Kathmandu", "Africa/Cairo", "Africa/Casablanca", "Antarctica/Troll"),
    *("Australia/Lord_Howe", "Pacific/Apia"),
)
SPECS = ("30 2 * * *", "*/15 0-3 * * *", "10 * * * *", "0 */2 * * *", "59 23 * * fri", "0 0 1,31 * *", "0,30 1,2 * * *")


@lru_cache
def changes(name: str) -> tuple[datetime.datetime, ...]:
    """Return the first minutes of a zone with another offset than the minute before, over 50 years."""
    zone, found, moment = ZoneInfo(name), [], FIRST
    while moment < LAST:
        if moment.astimezone(zone).utcoffset() != (moment + DAY).astimezone(zone).utcoffset():
            minutes = (moment + MINUTE * number for number in range(24 * 60))
            found.append(next(at for at in minutes if _offset(at, zone) != _offset(at + MINUTE, zone)) + MINUTE)
        moment += DAY
    return tuple(found)


def _offset(at: datetime.datetime, zone: ZoneInfo) -> datetime.timedelta | None:
    return at.astimezone(zone).utcoffset()


def walked(spec: str, name: str, first: datetime.datetime, last: datetime.datetime) -> Iterator[datetime.datetime]:
    """Yield the minutes after ``first`` in which the wall clock shows, or passes for the first time, a due time."""
    parsed, zone, furthest, at = Cron.of(cron(spec)).spec, ZoneInfo(name), None, first - 2 * DAY
    while at <= last:
        wall = at.astimezone(zone).replace(tzinfo=None, fold=0)
        if len(parsed.hour) == 24:
            is_due = parsed.validate(wall)
        else:
            passed = range(0 if furthest is None else max(int((wall - furthest) / MINUTE), 0))
            is_due = any(parsed.validate(wall - MINUTE * number) for number in passed)
        furthest = wall if furthest is None else max(furthest, wall)
        if is_due and at > first:
            yield at
        at += MINUTE


def made(by: str, spec: str, name: str) -> Schedule:
    broker = StubBroker(middleware=[Periodic()])
    options = {"periodic": cron(spec), "time_zone": name} if by == "code" else {"schedulable": True}
    dramatiq.actor(lambda: None, broker=broker, actor_name="tick", **options)
    with the_global_broker(broker):
        if by == "row":
            return schedule_of(StoredSchedule(name="nightly", actor="tick", cron=spec, time_zone=name))
        return schedules()[0]


def check(schedule: Schedule, spec: str, name: str, change: datetime.datetime) -> None:
    first, last = change - DAY, change + DAY
    expected = list(walked(spec, name, first, last))

    assert list(schedule.back(first, last))[::-1] == expected
    forward = [schedule.next(first)]
    while forward[-1] is not None and forward[-1] <= last:
        forward.append(schedule.next(forward[-1]))
    assert forward[:-1] == expected


numbers = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
fields = [
    st.one_of(st.just("*"), st.lists(st.integers(*span), min_size=1, max_size=3).map(lambda v: ",".join(map(str, v))))
    for span in numbers
]
drawn_specs = st.tuples(*fields[:2], st.just("*"), st.just("*"), fields[4]).map(" ".join)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(data=st.data(), name=st.sampled_from([name for name in ZONES if name != "Asia/Kathmandu"]))
@pytest.mark.parametrize("by", ["code", "row"])
def test_ticks_around_a_change_are_those_of_the_wall_clock(by, data, name):
    spec = data.draw(st.one_of(st.sampled_from(SPECS), drawn_specs))

    check(made(by, spec, name), spec, name, data.draw(st.sampled_from(changes(name))))


@pytest.mark.long
@pytest.mark.parametrize("by", ["code", "row"])
@pytest.mark.parametrize("name", ZONES)
def test_every_change_of_fifty_years(by, name):
    for change in changes(name):
        for spec in SPECS:
            check(made(by, spec, name), spec, name, change)


@pytest.mark.long
@pytest.mark.parametrize("name", ZONES)
def test_a_nightly_schedule_is_due_once_for_each_day_of_fifty_years(name):
    zone, schedule = ZoneInfo(name), made("row", "30 2 * * *", name)
    ticks = list(schedule.back(FIRST, LAST))[::-1]

    gaps = [later - earlier for earlier, later in pairwise(ticks)]
    days = {tick.astimezone(zone).date() for tick in ticks}
    assert min(gaps) > datetime.timedelta(hours=20) or name == "Pacific/Apia"
    assert max(gaps) < datetime.timedelta(hours=28) and len(ticks) in (len(days), len(days) + (name == "Pacific/Apia"))
    assert len(ticks) in range((LAST - FIRST).days - 1, (LAST - FIRST).days + 2)


@pytest.mark.parametrize(
    ("spec", "day", "expected"),
    [
        ("30 2 * * *", "2026-03-29", ["01:00"]),  # skipped: at 03:00 in Berlin, the first minute after the gap
        ("30 2 * * *", "2026-10-25", ["00:30"]),  # shown twice: at the first pass alone
        ("0,30 2,3 * * *", "2026-03-29", ["01:00", "01:30"]),  # 02:00, 02:30 and 03:00 are one tick
        ("30 * * * *", "2026-03-29", ["00:30", "01:30"]),  # hourly: the hour that is skipped has no tick
        ("30 * * * *", "2026-10-25", ["00:30", "01:30"]),  # hourly: both passes have one
    ],
)
def test_the_rules_in_berlin(spec, day, expected):
    midnight = datetime.datetime.fromisoformat(f"{day}T00:00+00:00")

    found = Cron.of(cron(spec), "Europe/Berlin").back(midnight, midnight + datetime.timedelta(hours=1, minutes=59))

    assert [f"{tick:%H:%M}" for tick in found][::-1] == expected


def test_an_interval_counts_elapsed_time_over_a_change():
    [change] = [at for at in changes("Europe/Berlin") if at.year == 2026 and at.month == 3]
    trigger = Every(5400, change - DAY)

    ticks = list(trigger.back(change - DAY, change + DAY))[::-1]

    assert {later - earlier for earlier, later in pairwise(ticks)} == {90 * MINUTE}
    assert trigger.next(change - 3 * DAY) == change - DAY and trigger.next(ticks[0]) == ticks[1]


def test_a_schedule_has_no_tick_before_its_start_and_none_after_its_end():
    at = datetime.datetime(2026, 11, 20, 8, 30, tzinfo=datetime.UTC)
    row = StoredSchedule(name="bounded", actor="tick", cron="*/10 * * * *", start=at, end=at + 20 * MINUTE)
    broker = StubBroker(middleware=[Periodic()])
    dramatiq.actor(lambda: None, broker=broker, actor_name="tick", schedulable=True)
    with the_global_broker(broker):
        schedule = schedule_of(row)

    assert schedule.next(at - DAY) == at and schedule.next(at + 20 * MINUTE) is None
    assert list(schedule.back(at - DAY, at + DAY))[::-1] == [at, at + 10 * MINUTE, at + 20 * MINUTE]
