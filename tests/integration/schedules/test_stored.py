"""Schedules that are rows: sent as those of code, refused where they cannot be used, changed with an audit row."""

from __future__ import annotations

import datetime

import pytest
from django.db import DatabaseError

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.broker.errors import ArgumentsRefused
from switchyard.schedules import rows, runner, services
from switchyard.schedules.models import ScheduleState, ScheduleTick, StoredSchedule
from tests.integration.schedules.conftest import START

WHO = Who("ada", "page")
MINUTE = datetime.timedelta(minutes=1)


def steps(yard, count: int) -> None:
    scheduler = yard.scheduler()
    for _ in range(count):
        scheduler.step()
        yard.clock.forward(minutes=1)
    yard.lapse()


def test_rows_and_code_are_sent_side_by_side_each_tick_once(yard):
    yard.declare("of_code")
    yard.actor()
    yard.store("of_row", kwargs={"customer": 7})

    steps(yard, 5)

    assert yard.sent() == 10
    state = ScheduleState.objects.get(actor="of_row")
    message = yard.facilities.transport.find_message("default", state.last_job_id)
    assert (message.actor_name, message.kwargs) == ("work", {"customer": 7})
    assert message.options["origin"] == {"schedule": "of_row"}


def test_an_interval_counts_from_its_start_and_ends_at_its_end(yard):
    yard.actor()
    end = START + 40 * MINUTE
    yard.store("slow", cron="", every_s=900, start=START + 5 * MINUTE, end=end)

    steps(yard, 60)

    sent = ScheduleTick.objects.filter(schedule="slow").order_by("due_at").values_list("due_at", flat=True)
    assert list(sent) == [START + minutes * MINUTE for minutes in (5, 20, 35)]


def test_a_changed_timing_begins_now_and_a_changed_argument_loses_no_tick(yard):
    yard.actor()
    row = yard.store("work-nightly", cron="0 9 * * *")
    steps(yard, 1)
    state = ScheduleState.objects.get()

    row.kwargs = {"customer": 3}
    rows.save(row, who=WHO)
    yard.clock.forward(hours=1)
    steps(yard, 1)
    assert yard.sent() == 1 and ScheduleState.objects.get().spec == state.spec

    row.cron, row.time_zone = "0 8 * * *", "Europe/Berlin"  # was due at 07:00 UTC
    rows.save(row, who=WHO)
    steps(yard, 1)
    assert yard.sent() == 1 and ScheduleState.objects.get().spec == "0 8 * * * Europe/Berlin"


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"actor": "gone"}, "actor", "no actor of that name"),
        ({"actor": "closed"}, "actor", "schedulable=True"),
        ({"name": "code"}, "name", "the actor code is periodic"),
        ({"name": "a/b"}, "name", "without /"),
        ({"cron": "61 * * * *"}, "cron", "never due"),
        ({"cron": "soon"}, "cron", "not a cron expression"),
        ({"cron": "0-999999999 * * * *"}, "cron", "numbers up to 59"),
        ({"cron": "0 0 2 * * *"}, "cron", "of which five are read"),
        ({"cron": ""}, "cron", "a cron expression or an interval"),
        ({"every_s": 60}, "every_s", "not both"),
        ({"cron": "", "every_s": 90}, "every_s", "whole minutes"),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "such as Europe/Berlin"),
        ({"start": START, "end": START}, "end", "write a later time"),
        ({"deadline_s": 0}, "deadline_s", "write seconds"),
        ({"overlap": "maybe"}, "overlap", "allow, skip, replace"),
        ({"actor": "untracked", "overlap": "skip"}, "overlap", "track=False"),
        ({"kwargs": {"customer": "x"}}, "arguments", "expects int"),
        ({"kwargs": {"city": 1}}, "arguments", "city"),
        ({"kwargs": {"secret": "x"}}, "arguments", "no schedule keeps it"),
    ],
)
def test_a_row_that_could_not_run_is_refused_with_the_remedy(yard, fields, field, words):
    def work(customer: int = 0, secret: str = "") -> None: ...

    yard.declare("code")
    yard.actor(function=work, redact=("secret",))
    yard.actor("closed", schedulable=False)
    yard.actor("untracked", track=False)

    with pytest.raises(ArgumentsRefused) as refused:
        yard.store(**fields)

    assert words in refused.value.faults[field]
    assert not StoredSchedule.objects.exists() and not AuditEntry.objects.exists()


def test_a_row_whose_actor_is_gone_is_named_once_and_goes_on_when_it_is_back(yard):
    yard.actor()
    yard.store()
    yard.store("fine")
    actor = yard.broker.actors["work"]
    StoredSchedule.objects.filter(name="tick").update(actor="gone")

    steps(yard, 3)
    found, faulty = rows.stored_schedules()

    assert yard.sent() == 3 and [schedule.name for schedule in found] == ["fine"]
    assert "no actor of that name" in faulty["tick"]
    yard.broker.actors["gone"] = actor
    steps(yard, 1)
    assert yard.sent() == 5


def test_schedules_of_code_go_on_while_rows_cannot_be_read(yard, clock, monkeypatch):
    yard.declare()
    scheduler = yard.scheduler()

    def fails():
        raise DatabaseError("no such table")

    with monkeypatch.context() as patch:
        patch.setattr(runner, "stored_schedules", fails)
        scheduler.step()
        assert yard.sent() == 1
    yard.actor()
    yard.store("of_row")
    scheduler.step()

    assert yard.sent() == 2, "the minute is done again once the rows can be read"


def test_changes_are_audited_without_arguments_and_a_deleted_row_leaves_no_progress(yard):
    yard.actor()
    row = yard.store(kwargs={"customer": 4711})
    steps(yard, 1)
    row.cron = "5 * * * *"
    assert rows.save(row, who=WHO, reason="less often")
    assert not rows.save(row, who=WHO)
    rows.delete("tick", who=WHO, reason="not needed")

    made, changed, deleted = AuditEntry.objects.order_by("id")
    assert (made.act, changed.act, deleted.act) == ("schedule.save", "schedule.save", "schedule.delete")
    assert changed.detail == {"cron": "5 * * * *", "cron before": "* * * * *"} and changed.reason == "less often"
    assert made.detail["kwargs"] == "changed" and "4711" not in str([made.detail, deleted.detail])
    assert not ScheduleState.objects.exists() and not ScheduleTick.objects.exists()
    steps(yard, 2)
    assert yard.sent() == 1


def test_a_row_can_be_paused_and_resumed_as_a_schedule_of_code(yard, monkeypatch):
    yard.actor()
    yard.store()
    monkeypatch.setattr("dramatiq.get_broker", lambda: yard.broker)
    monkeypatch.setattr("switchyard.broker.clock.utc_now", yard.clock)
    services.pause("tick", who=WHO, reason="month end")

    steps(yard, 3)
    assert yard.sent() == 0 and ScheduleState.objects.get().missed == 3
    services.resume("tick", who=WHO)
    steps(yard, 2)

    assert yard.sent() == 1, "the minute of the resumption was missed, the next is sent"
