"""A paused schedule sends nothing, says how many ticks it missed, and never sends those."""

from __future__ import annotations

import datetime

import dramatiq
import pytest
from django.utils import timezone
from periodiq import cron

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.schedules import queries, services
from switchyard.schedules.models import ScheduleState, ScheduleTick
from tests.integration.schedules.conftest import START

MINUTE = datetime.timedelta(minutes=1)
WHO = Who("a.lind", "page")


def steps(scheduler, clock, count: int) -> None:
    for _ in range(count):
        scheduler.step()
        clock.forward(minutes=1)


def pause(until: datetime.datetime | None, at: datetime.datetime) -> None:
    ScheduleState.objects.update(paused_at=at, paused_until=until, paused_by="a.lind", missed=0)


def test_a_paused_schedule_sends_nothing_and_counts_what_it_missed(yard, clock):
    yard.declare()
    scheduler = yard.scheduler()
    steps(scheduler, clock, 2)

    pause(None, clock())
    steps(scheduler, clock, 5)

    state = ScheduleState.objects.get()
    assert (yard.sent(), state.missed) == (2, 5)
    outcomes = [tick.outcome for tick in queries.last_ticks("tick")]
    assert outcomes == ["missed"] * 5 + ["sent"] * 2


def test_a_pause_outlives_its_leader_and_a_time_without_one(yard, clock):
    yard.declare(catch_up="all")
    first = yard.scheduler()
    steps(first, clock, 1)
    pause(None, clock())
    steps(first, clock, 2)
    yard.lapse()

    clock.forward(minutes=10)
    steps(yard.scheduler(), clock, 1)

    assert (yard.sent(), ScheduleState.objects.get().missed) == (1, 13)


def test_a_pause_ends_by_itself_and_sends_no_missed_tick(yard, clock):
    yard.declare(catch_up="all")
    scheduler = yard.scheduler()
    steps(scheduler, clock, 1)
    pause(START + 4 * MINUTE, clock())

    steps(scheduler, clock, 6)

    state = ScheduleState.objects.get()
    assert (state.paused_at, state.missed) == (None, 3)  # 31, 32, 33
    sent = ScheduleTick.objects.filter(outcome="sent").order_by("due_at").values_list("due_at", flat=True)
    assert [moment.minute for moment in sent] == [30, 34, 35, 36]


def test_a_pause_that_ended_while_no_scheduler_ran_leaves_the_later_ticks_to_catch_up(yard, clock):
    yard.declare(catch_up="all")
    steps(yard.scheduler(), clock, 1)
    pause(START + 4 * MINUTE, clock())
    yard.lapse()

    clock.forward(minutes=9)
    yard.scheduler().step()

    assert ScheduleState.objects.get().missed == 3
    assert yard.sent() == 1 + 7  # 34 to 40


def test_two_schedulers_that_both_believe_to_lead_count_a_missed_tick_once(yard, clock):
    yard.declare()
    stopped, leader = yard.scheduler(), yard.scheduler()
    stopped.step()
    yard.lapse()
    pause(None, clock())

    for _ in range(4):
        clock.forward(minutes=1)
        leader.step()
        stopped.step()

    assert (yard.sent(), ScheduleState.objects.get().missed) == (1, 4)


def test_the_last_fifty_ticks_of_each_schedule_are_kept(yard, clock):
    yard.declare()
    yard.declare("other")
    scheduler = yard.scheduler()

    steps(scheduler, clock, queries.KEPT + 7)

    ticks = queries.last_ticks("tick", limit=1_000)
    assert len(ticks) == len(queries.last_ticks("other", limit=1_000)) == queries.KEPT
    assert ticks[0].due_at == clock() - MINUTE and ticks[-1].due_at == clock() - queries.KEPT * MINUTE
    assert all(tick.job_id and tick.lateness_ms == 0 for tick in ticks)


@pytest.fixture
def every_minute(facilities):
    """A schedule of this project's own broker."""
    broker = dramatiq.get_broker()
    dramatiq.actor(lambda: None, broker=broker, actor_name="sweep", queue_name="billing", periodic=cron("* * * * *"))
    yield "sweep"
    del broker.actors["sweep"]


def test_resume_says_how_many_were_missed_and_sends_none(db, every_minute, facilities):
    services.pause(every_minute, who=WHO, reason="month end")
    minute = timezone.now().replace(second=0, microsecond=0)
    ScheduleState.objects.update(since=minute - 7 * MINUTE)

    missed = services.resume(every_minute, who=WHO)
    again = services.resume(every_minute, who=WHO)

    assert missed in (7, 8) and again is None  # 8 when a minute ended meanwhile
    state = ScheduleState.objects.get()
    assert state.since >= minute and not state.is_paused(timezone.now())
    assert facilities.transport.stats("billing").live.waiting == 0
    entries = [(entry.act, entry.who, entry.reason, entry.count) for entry in AuditEntry.objects.order_by("id")]
    assert entries[:2] == [("schedule.pause", "a.lind", "month end", 1), ("schedule.resume", "a.lind", "", 1)]


def test_a_run_now_is_kept_beside_the_ticks_also_during_a_pause(db, every_minute, facilities):
    services.pause(every_minute, who=WHO)

    job_id = services.run_now(every_minute, who=WHO)

    (tick,) = queries.last_ticks(every_minute)
    assert (tick.outcome, tick.job_id, tick.by) == ("run_now", job_id, "a.lind")
    message = facilities.transport.find_message("billing", job_id)
    assert message.options["origin"] == {"schedule": "sweep", "user": "a.lind"}
    assert AuditEntry.objects.last().act in ("schedule.run", "schedule.pause")
