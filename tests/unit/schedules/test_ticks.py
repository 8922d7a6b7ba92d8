"""Ticks of cron expressions: when they are due in each zone, those of a downtime, and the drawing of the next hour."""

import datetime
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from hypothesis import given, settings
from hypothesis import strategies as st
from periodiq import cron

from switchyard.middleware.options import Periodic
from switchyard.schedules.models import StoredSchedule
from switchyard.schedules.registry import Cron, Every, Schedule, check_schedules, errors_of, minute_of, schedules
from switchyard.schedules.rows import schedule_of
from switchyard.schedules.views import LEFT_PX, LINE_PX, TOP_PX, WIDTH_PX, draw
from tests.factories.brokers import the_global_broker

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


def fields(*spans: tuple[int, int], most: int) -> list[st.SearchStrategy[str]]:
    """Return a strategy for each field of an expression: any, or up to so many numbers."""
    numbers = (st.lists(st.integers(*span), min_size=1, max_size=most) for span in spans)
    return [st.one_of(st.just("*"), each.map(lambda found: ",".join(map(str, found)))) for each in numbers]


specs = st.tuples(*fields((0, 59), (0, 23), (1, 31), (1, 12), (0, 7), most=4)).map(" ".join)
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


MINUTES, HOURS, DAYS = fields((0, 59), (0, 23), (0, 6), most=3)
drawn_specs = st.tuples(MINUTES, HOURS, st.just("*"), st.just("*"), DAYS).map(" ".join)


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


NOW = datetime.datetime(2026, 11, 20, 8, 30, tzinfo=datetime.UTC)


@pytest.fixture
def declare(yard_broker):
    """Declare a periodic actor on a broker of its own and return its schedule."""

    def make(spec: object, function=lambda: None, **options) -> Schedule:
        with the_global_broker(actor_of(yard_broker(), spec, function, **options).broker):
            [schedule] = schedules()
        return schedule

    return make


def actor_of(broker: dramatiq.Broker, spec: object, function, **options) -> dramatiq.Actor:
    return dramatiq.actor(function, broker=broker, actor_name="tick", queue_name="default", periodic=spec, **options)


def minutes_ago(count: int) -> datetime.datetime:
    return NOW - datetime.timedelta(minutes=count)


def test_only_periodic_actors_are_schedules(yard_broker):
    broker = yard_broker()
    dramatiq.actor(lambda: None, broker=broker, actor_name="plain", queue_name="default")
    for name in ("b", "a"):
        dramatiq.actor(lambda: None, broker=broker, actor_name=name, queue_name="default", periodic=cron("@daily"))

    with the_global_broker(broker):
        assert [schedule.name for schedule in schedules()] == ["a", "b"]


@pytest.mark.parametrize(
    ("spec", "catch_up", "minutes", "due"),
    [
        ("*/10 * * * *", "once", 600, [0]),
        ("25 * * * *", "once", 600, [5]),
        ("25 * * * *", "once", 5, []),
        ("25 * * * *", "skip", 600, []),
        ("29 * * * *", "skip", 600, [1]),
        ("*/10 * * * *", "all", 25, [20, 10, 0]),
        ("* * * * *", "all", 5_000, [*range(99, -1, -1)]),
    ],
)
def test_a_schedule_catches_up_as_it_says_oldest_first_and_a_hundred_ticks_at_most(
    declare, spec, catch_up, minutes, due
):
    options = {} if catch_up == "once" else {"catch_up": catch_up}
    assert declare(cron(spec), **options).due(minutes_ago(minutes), NOW) == [minutes_ago(each) for each in due]


@pytest.mark.parametrize(
    ("spec", "function", "options", "words"),
    [
        ("0 2 * * *", lambda: None, {}, "periodiq's cron"),
        (cron("0 0 31 2 *"), lambda: None, {}, "days 1 to 31"),
        (cron("61 * * * *"), lambda: None, {}, "minutes are 0 to 59"),
        (cron("0 0 2 * * *"), lambda: None, {}, "minute, hour, day, month"),
        (cron("@daily"), lambda month: None, {}, "give each parameter a default"),
        (cron("@daily"), lambda: None, {"catch_up": "twice"}, "once, skip, all"),
        (cron("@daily"), lambda: None, {"time_zone": "Europe/Atlantis"}, "such as Europe/Berlin"),
        (cron("@daily"), lambda: None, {"time_zone": "Europe"}, "such as Europe/Berlin"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused_with_the_fix(spec, function, options, words, yard_broker):
    (error,) = errors_of(actor_of(yard_broker(), spec, function, **options))

    assert error.id == "switchyard.E050"
    assert "actor tick" in error.obj and words in error.hint


def test_this_projects_schedules_and_parameters_with_defaults_pass_the_checks(declare):
    assert check_schedules(None) == []
    assert errors_of(declare(cron("@daily"), lambda month="", *rest, **more: None).actor) == []


DRAWN_AT = datetime.datetime(2026, 11, 20, 2, 54, 10, tzinfo=datetime.UTC)


def every(name: str, minutes: int, *, seconds: int = 0) -> Any:
    """Return a schedule that is due every so many minutes of the hour."""
    step = datetime.timedelta(minutes=minutes, seconds=seconds)

    def next_after(moment: datetime.datetime) -> datetime.datetime:
        begin = moment.replace(minute=0, second=0, microsecond=0)
        return begin + ((moment - begin) // step + 1) * step

    return SimpleNamespace(name=name, next=next_after)


def drawn(*schedules: Any, rows: Iterable[Any] = ()) -> dict[str, Any]:
    return draw(schedules, list(rows), DRAWN_AT)


def test_a_schedule_has_a_mark_for_each_tick_of_the_hour():
    [line] = drawn(every("rates", 20))["lines"]

    assert line["words"] == "rates: 03:00, 03:20, 03:40"
    assert [place - LEFT_PX for place in line["marks"]] == [76, 336, 596]
    assert (line["y"], line["name"]) == (TOP_PX, "rates")


def test_schedules_stand_below_each_other_and_the_axis_names_the_tens():
    found = drawn(every("rates", 20), every("report", 30))

    assert [line["y"] for line in found["lines"]] == [TOP_PX, TOP_PX + LINE_PX]
    assert found["height"] == TOP_PX + 2 * LINE_PX
    assert [text for _, text in found["axis"]] == ["03:00", "03:10", "03:20", "03:30", "03:40", "03:50"]
    assert all(LEFT_PX <= place <= WIDTH_PX for place, _ in found["axis"])
