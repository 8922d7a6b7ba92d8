"""Each tick is sent once, whichever scheduler leads and whichever process dies."""

from __future__ import annotations

import datetime

import pytest

from switchyard.schedules import queries, services
from switchyard.schedules.models import ScheduleState, ScheduleTick
from switchyard.schedules.registry import schedules
from tests.waiting import wait_for

MINUTE = datetime.timedelta(minutes=1)


def test_two_schedulers_send_one_tick_a_minute(yard, clock):
    yard.declare()
    first, second = yard.scheduler(), yard.scheduler()

    for _ in range(10):
        for scheduler in (first, second, first):
            scheduler.step()
        clock.forward(minutes=1)

    assert yard.sent() == 10
    assert (first.leadership.held(), second.leadership.held()) == (True, False)


def test_ticks_stay_single_while_leaders_die(yard, clock):
    yard.declare()
    standing_by = yard.scheduler()

    for minute in range(60):
        leader, standing_by = standing_by, yard.scheduler()
        leader.step()
        clock.forward(seconds=20)
        standing_by.step()
        if minute % 3 == 0:
            yard.lapse()  # the leader was killed: nobody gives the lease back
        else:
            leader.leadership.release()
        standing_by.step()
        clock.forward(seconds=40)

    assert yard.sent() == 60


def test_two_that_both_believe_to_lead_send_one_tick(yard, clock):
    yard.declare()
    stopped, leader = yard.scheduler(), yard.scheduler()
    stopped.step()
    yard.lapse()
    leader.step()

    for _ in range(5):
        clock.forward(minutes=1)
        stopped.step()
        leader.step()

    assert stopped.leadership.held() and leader.leadership.held()
    assert yard.sent() == 6


def test_a_tick_that_was_claimed_but_never_sent_is_sent_by_the_next_leader(yard, clock):
    yard.declare()
    records = yard.facilities.records
    records.calls.client.set(records.keys.tick("tick", clock().strftime("%Y-%m-%dT%H:%MZ")), services.CLAIMED)

    yard.scheduler().step()

    assert yard.sent() == 1


def test_a_tick_that_was_sent_but_not_marked_is_not_sent_again(yard, clock):
    yard.declare()
    (schedule,) = schedules()
    services.load_state(schedule, clock())
    services.send_tick(schedule, clock(), clock())
    records = yard.facilities.records
    records.calls.client.set(records.keys.tick("tick", clock().strftime("%Y-%m-%dT%H:%MZ")), services.CLAIMED)
    ScheduleState.objects.update(since=clock() - MINUTE)

    yard.scheduler().step()

    assert yard.sent() == 1
    assert ScheduleState.objects.get().since == clock()


def test_a_tick_is_kept_in_mind_for_seven_days(yard, clock):
    yard.declare()
    yard.scheduler().step()

    records = yard.facilities.records
    left_s = records.calls.client.ttl(records.keys.tick("tick", clock().strftime("%Y-%m-%dT%H:%MZ")))
    assert 7 * 24 * 3600 - 60 < left_s <= 7 * 24 * 3600


def test_a_clock_that_was_ahead_silences_no_schedule_and_skips_no_later_tick(yard, clock):
    yard.declare()
    yard.declare("daily", "0 3 * * *")
    clock.forward(days=1)
    clock.now = clock.now.replace(hour=3, minute=0)
    yard.scheduler().step()
    assert yard.sent() == 2  # both before their time

    clock.forward(days=-1, minutes=-10)
    yard.lapse()
    for _ in range(5):
        yard.scheduler().step()
        yard.lapse()
        clock.forward(minutes=1)
    assert yard.sent() == 2 + 5

    clock.forward(days=1, minutes=5)
    yard.scheduler().step()
    assert ScheduleState.objects.get(actor="daily").last_tick == clock()
    key = yard.facilities.records.keys.tick("daily", clock().strftime("%Y-%m-%dT%H:%MZ"))
    assert yard.facilities.records.calls.client.get(key) == services.SENT


@pytest.mark.parametrize("spec, options", [("0 * * * *", {"catch_up": "all"}), ("*/30 * * * *", {})])
def test_ticks_that_a_clock_ahead_sent_are_sent_again_when_they_are_due(yard, clock, spec, options):
    yard.declare(spec=spec, **options)
    scheduler = yard.scheduler()
    scheduler.step()
    for _ in range(4):  # a day ahead, and for two hours
        clock.forward(days=1)
        scheduler.step()
        clock.forward(days=-1, minutes=30)
    before = yard.sent()  # they wait: the second job of a tick is another one

    for _ in range(2 * 26):
        scheduler.step()
        clock.forward(minutes=30)

    last = clock() - 30 * MINUTE
    due = list(schedules()[0].back(last - 52 * 30 * MINUTE, last))
    assert yard.sent() - before == len(due)
    kept = ScheduleTick.objects.filter(due_at__in=due, outcome=ScheduleTick.Outcome.SENT).count()
    assert kept == min(len(due), queries.KEPT)


@pytest.mark.django_db(transaction=True)
def test_the_job_of_a_tick_runs_and_is_remembered(yard, clock, run_worker):
    ran = []
    yard.declare(function=lambda: ran.append(clock()))
    clock.forward(seconds=2.5)
    yard.scheduler().step()

    with run_worker("default", broker=yard.broker):
        wait_for(lambda: ran)

    state = ScheduleState.objects.get()
    assert (state.actor, state.spec, state.lateness_ms) == ("tick", "* * * * *", 2500)
    assert state.last_tick == clock().replace(second=0, microsecond=0)
    wait_for(lambda: yard.facilities.records.read(state.last_job_id).state == "succeeded")
