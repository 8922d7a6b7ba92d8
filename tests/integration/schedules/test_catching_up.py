"""After a downtime each schedule catches up as it says; a new or changed one begins now."""

import pytest

from switchyard.schedules.models import ScheduleState
from tests.factories.brokers import full


def run_for(yard, minutes: int) -> None:
    scheduler = yard.scheduler()
    yard.steps(minutes, scheduler)
    scheduler.leadership.release()


def test_once_is_the_default_and_sends_one_late_tick(yard, clock):
    yard.declare(spec="*/2 * * * *")
    run_for(yard, 2)
    before = yard.sent()

    clock.forward(minutes=9, seconds=10)
    scheduler = yard.scheduler()
    scheduler.step()
    scheduler.step()

    state = ScheduleState.objects.get()
    assert (before, yard.sent()) == (1, 2)
    assert (state.last_tick.minute, state.lateness_ms) == (40, 70_000)


@pytest.mark.parametrize(
    ("catch_up", "spec", "minutes", "sent"), [("skip", "45 * * * *", 180, 0), ("all", "*/5 * * * *", 19, 1 + 4)]
)
def test_skip_sends_nothing_of_a_downtime_and_all_each_missed_tick(yard, clock, catch_up, spec, minutes, sent):
    yard.declare(spec=spec, catch_up=catch_up)
    run_for(yard, 1)

    clock.forward(minutes=minutes)
    yard.scheduler().step()

    assert yard.sent() == sent


def test_a_new_schedule_does_not_send_what_was_before_it(yard, clock):
    yard.declare(spec="0 2 * * *")

    yard.scheduler().step()

    assert yard.sent() == 0
    assert ScheduleState.objects.get().last_tick is None


def test_a_changed_expression_does_not_count_as_missed(yard, clock):
    yard.declare(spec="0 9 * * *")
    run_for(yard, 1)
    ScheduleState.objects.update(spec="0 10 * * *")

    clock.forward(hours=5)
    yard.scheduler().step()

    assert yard.sent() == 0
    assert ScheduleState.objects.get().spec == "0 9 * * *"


def test_a_broker_that_refuses_delays_a_tick_and_loses_none(yard, clock, valkey):
    yard.declare()
    scheduler = yard.scheduler()
    scheduler.step()

    clock.forward(minutes=1)
    with full(valkey):
        scheduler.step()
    sent_meanwhile = yard.sent()
    clock.forward(seconds=5)
    scheduler.step()

    assert (sent_meanwhile, yard.sent()) == (1, 2)
    assert ScheduleState.objects.get().lateness_ms == 5000


def test_a_schedule_that_cannot_be_sent_holds_no_other_up(yard):
    yard.declare("a_broken", function=lambda month: None)
    yard.declare("b_fine")

    scheduler = yard.scheduler()
    scheduler.step()
    scheduler.step()

    assert yard.sent() == 1
    assert ScheduleState.objects.get(actor="b_fine").last_tick is not None
