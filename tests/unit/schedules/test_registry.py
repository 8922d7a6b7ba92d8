"""Registration of periodic actors, and the ticks of a downtime that they catch up."""

from __future__ import annotations

import datetime

import dramatiq
import pytest
from periodiq import cron

from switchyard.schedules.registry import Schedule, check_schedules, errors_of, schedules
from tests.factories.brokers import the_global_broker

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


def test_once_sends_the_last_missed_tick(declare):
    assert declare(cron("*/10 * * * *")).due(minutes_ago(600), NOW) == [NOW]
    assert declare(cron("25 * * * *")).due(minutes_ago(600), NOW) == [minutes_ago(5)]


def test_nothing_missed_is_nothing_due(declare):
    assert declare(cron("25 * * * *")).due(minutes_ago(5), NOW) == []


def test_skip_sends_what_is_due_now_and_drops_what_was_missed(declare):
    assert declare(cron("25 * * * *"), catch_up="skip").due(minutes_ago(600), NOW) == []
    assert declare(cron("29 * * * *"), catch_up="skip").due(minutes_ago(600), NOW) == [minutes_ago(1)]


def test_all_sends_each_oldest_first_and_a_hundred_at_most(declare):
    assert declare(cron("*/10 * * * *"), catch_up="all").due(minutes_ago(25), NOW) == [
        minutes_ago(20), minutes_ago(10), NOW,
    ]  # fmt: skip
    assert declare(cron("* * * * *"), catch_up="all").due(minutes_ago(5000), NOW)[0] == minutes_ago(99)


def test_this_projects_schedules_pass_the_checks():
    assert check_schedules(None) == []


@pytest.mark.parametrize(
    ("spec", "function", "options", "id", "words"),
    [
        ("0 2 * * *", lambda: None, {}, "switchyard.E050", "periodiq's cron"),
        (cron("0 0 31 2 *"), lambda: None, {}, "switchyard.E050", "days 1 to 31"),
        (cron("61 * * * *"), lambda: None, {}, "switchyard.E050", "minutes are 0 to 59"),
        (cron("0 0 2 * * *"), lambda: None, {}, "switchyard.E050", "minute, hour, day, month"),
        (cron("@daily"), lambda month: None, {}, "switchyard.E050", "give each parameter a default"),
        (cron("@daily"), lambda: None, {"catch_up": "twice"}, "switchyard.E050", "once, skip, all"),
        (cron("@daily"), lambda: None, {"time_zone": "Europe/Atlantis"}, "switchyard.E050", "such as Europe/Berlin"),
        (cron("@daily"), lambda: None, {"time_zone": "Europe"}, "switchyard.E050", "such as Europe/Berlin"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused_with_the_fix(spec, function, options, id, words, yard_broker):
    (error,) = errors_of(actor_of(yard_broker(), spec, function, **options))

    assert error.id == id
    assert "actor tick" in error.obj and words in error.hint


def test_parameters_with_defaults_are_fine(declare):
    assert errors_of(declare(cron("@daily"), lambda month="", *rest, **more: None).actor) == []
