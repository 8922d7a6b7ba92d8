"""Pages and commands of schedules of code and of rows: paused, changed, imported; what cannot be used is refused."""

import datetime
import json

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from periodiq import cron

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.broker.errors import ArgumentsRefused
from switchyard.operations.findings.records import look_at_ticks
from switchyard.schedules import queries, rows, runner, services
from switchyard.schedules.models import ScheduleState, ScheduleTick, StoredSchedule
from tests.factories.staff import staff
from tests.integration.schedules.conftest import START

pytestmark = pytest.mark.django_db


WHO = Who("a.lind", "page")
MINUTE = datetime.timedelta(minutes=1)


def steps(yard, count: int) -> None:
    yard.steps(count)
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


LIST, NEW = reverse("switchyard-schedules"), reverse("switchyard-schedule-new")
RIGHTS = ("view_schedulestate", "edit_schedule", "view_arguments", "run_schedule", "view_job")
FORM = {
    "name": "nightly", "argument-city": "Bern", "argument-days": "[1, 2]", "cron": "30 2 * * *",
    "time_zone": "Europe/Zurich", "overlap": "skip", "catch_up": "once", "deadline": "10m", "reason": "asked by Ada",
}  # fmt: skip


@pytest.fixture
def weather(facilities):
    """An actor of this project's own broker that people may schedule."""

    def weather(city: str, days: list[int], *, token: str = "") -> None: ...

    dramatiq.actor(weather, queue_name="billing", schedulable=True, redact=("token",))
    return "weather"


@pytest.fixture
def admin() -> Client:
    return staff(*RIGHTS)


def make(admin: Client, **changed) -> None:
    answer = admin.post(f"{NEW}?actor=weather", FORM | changed)
    assert answer.status_code == 302, answer.content.decode()


def page(name: str, of: str = "nightly") -> str:
    return reverse(f"switchyard-schedule{name}", args=[of])


def test_an_admin_makes_a_schedule_by_the_typed_form(admin, weather, facilities):
    chooser, form = admin.get(NEW).content.decode(), admin.get(f"{NEW}?actor=weather").content.decode()
    make(admin)
    shown, listed = admin.get(page("")).content.decode(), admin.get(LIST).content.decode()
    job_id = admin.post(page("-run"), follow=True).context["ticks"][0].job_id

    assert '<option value="weather">' in chooser
    assert '<code class="sy-code">list[int]</code>' in form and "argument-token" not in form
    row = StoredSchedule.objects.get()
    assert (row.kwargs, row.time_zone, row.deadline_s) == ({"city": "Bern", "days": [1, 2]}, "Europe/Zurich", 600)
    assert "30 2 * * *" in shown and "Europe/Zurich" in shown and "city=&quot;Bern&quot;" in shown
    assert page("") in listed and "purge_delivery_attempts" in listed
    assert facilities.transport.find_message("billing", job_id).kwargs == row.kwargs
    saved = AuditEntry.objects.get(act="schedule.save")
    assert (saved.target, saved.reason) == ("nightly", "asked by Ada") and "Bern" not in str(saved.detail)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"argument-days": '["x"]'}, "expects list[int]"),
        ({"argument-city": ""}, "required: write a JSON value"),
        ({"cron": "", "every": "90s"}, "write whole minutes"),
        ({"every": "soon"}, "such as 15m"),
        ({"start": "tomorrow"}, "this is not a time"),
        ({"start": "0001-01-01T00:00:00+14:00"}, "this is not a time"),
        ({"name": "purge_delivery_attempts"}, "is periodic, and its schedule has this name"),
    ],
)
def test_a_form_that_cannot_be_stored_says_why_at_its_field(admin, weather, changed, words):
    answer = admin.post(f"{NEW}?actor=weather", FORM | changed)

    assert answer.status_code == 422 and words in answer.content.decode()
    assert not StoredSchedule.objects.exists()


def test_a_name_is_given_once(admin, weather):
    make(admin)

    again = admin.post(f"{NEW}?actor=weather", FORM | {"cron": "5 * * * *"})

    assert again.status_code == 422 and "a schedule has this name" in again.content.decode()
    assert StoredSchedule.objects.get().cron == "30 2 * * *"


def test_a_schedule_is_changed_and_deleted(admin, weather):
    make(admin)
    form = admin.get(page("-edit")).content.decode()
    changed = {"cron": "", "every": "2h", "time_zone": "UTC", "end": "2027-01-01 00:00", "name": "other"}
    admin.post(page("-edit"), FORM | changed)
    shown = admin.get(page("")).content.decode()
    asked = admin.get(page("-delete")).content.decode()
    admin.post(page("-delete"), {"reason": "over"})

    assert 'value="30 2 * * *"' in form and "[1, 2]" in form and 'value="10m"' in form
    assert "every 2 h" in shown and "1 Jan 2027 00:00" in shown and "Jobs that wait or run go on" in asked
    assert not StoredSchedule.objects.exists() and admin.get(page("")).status_code == 404


def test_who_may_not_see_arguments_sees_none_and_changes_nothing(admin, weather):
    make(admin)
    viewer = staff("view_schedulestate", "edit_schedule")

    shown = viewer.get(page("")).content.decode()

    assert "Bern" not in shown and "switchyard_jobs.view_arguments" in shown
    assert viewer.get(page("-edit")).status_code == viewer.get(NEW).status_code == 403


def test_a_row_that_cannot_be_used_is_on_the_list_with_its_reason(admin, weather, capsys):
    make(admin)
    StoredSchedule.objects.update(actor="gone")

    listed = admin.get(LIST).content.decode()
    led_back = admin.get(page("-edit"), follow=True).content.decode()
    call_command("switchyard", "schedules", "list")

    assert "nightly is not sent." in listed and "no actor of that name" in listed and page("-delete") in listed
    assert "nightly cannot be changed" in led_back
    assert "nightly is not sent: actor: this code has no actor of that name" in capsys.readouterr().err


def test_rows_are_exported_and_imported_with_their_pauses(admin, weather, tmp_path, capsys):
    make(admin)
    make(admin, name="hourly", cron="", every="1h", start="2026-12-01 06:00")
    ScheduleState.objects.create(actor="hourly", spec="x", since="2026-11-20T08:30Z", paused_at="2026-11-20T08:30Z")
    call_command("switchyard", "schedules", "export")
    text = capsys.readouterr().out
    StoredSchedule.objects.all().delete()
    ScheduleState.objects.all().delete()
    (file := tmp_path / "schedules.json").write_text(text)

    call_command("switchyard", "schedules", "import", str(file))
    first = capsys.readouterr().out
    call_command("switchyard", "schedules", "import", str(file))
    second = capsys.readouterr().out
    call_command("switchyard", "schedules", "export")

    assert first.splitlines() == ["hourly: stored", "nightly: stored"]
    assert second.splitlines() == ["hourly: unchanged", "nightly: unchanged"]
    assert json.loads(capsys.readouterr().out) == json.loads(text)
    assert {item["name"]: item["paused"] for item in json.loads(text)} == {"hourly": True, "nightly": False}
    assert [row.name for row in queries.paused(StoredSchedule.objects.first().created_at)] == ["hourly"]


def test_an_import_stores_what_fits_and_names_what_does_not(weather, tmp_path, capsys):
    good = {"name": "good", "actor": "weather", "kwargs": {"city": "Bern", "days": []}, "cron": "@daily"}
    items = [good, good | {"name": "bad", "cron": "61 * * * *"}, good | {"name": "odd", "crom": "x"}, 7]
    (file := tmp_path / "schedules.json").write_text(json.dumps(items))

    with pytest.raises(CommandError, match="3 schedules left out"):
        call_command("switchyard", "schedules", "import", str(file))

    printed = capsys.readouterr().out
    assert "good: stored" in printed and "bad: left out: schedule bad: cron: " in printed
    assert "unknown field crom" in printed and "3: left out: a schedule is a JSON object" in printed
    assert [row.name for row in StoredSchedule.objects.all()] == ["good"]


BEAT = """
CREATE TABLE django_celery_beat_crontabschedule (id integer PRIMARY KEY, minute varchar(240), hour varchar(96),
  day_of_week varchar(64), day_of_month varchar(124), month_of_year varchar(64), timezone varchar(63));
CREATE TABLE django_celery_beat_intervalschedule (id integer PRIMARY KEY, every integer, period varchar(24));
CREATE TABLE django_celery_beat_periodictask (id integer PRIMARY KEY, name varchar(200), task varchar(200), args text,
  kwargs text, queue varchar(200), one_off boolean, start_time timestamp with time zone,
  expires timestamp with time zone, enabled boolean, crontab_id integer, interval_id integer, solar_id integer);
INSERT INTO django_celery_beat_crontabschedule VALUES (1, '0', '*/2', 'mon-fri', '*', '*', 'Europe/Berlin');
INSERT INTO django_celery_beat_crontabschedule VALUES (2, '0', '2', '1', '1', '*', 'UTC');
INSERT INTO django_celery_beat_intervalschedule VALUES (1, 2, 'hours');
INSERT INTO django_celery_beat_intervalschedule VALUES (2, 30, 'seconds');
INSERT INTO django_celery_beat_periodictask VALUES
  (1, 'weather of Bern', 'news.tasks.weather', '["Bern"]', '{"days": [1]}', NULL, false, NULL, NULL, true, 1, NULL,
   NULL),
  (2, 'by interval', 'news.tasks.fetch', '["Bern", []]', '{}', NULL, false, '2026-12-01 06:00:00+00:00', NULL, false,
   NULL, 1, NULL),
  (3, 'often', 'news.tasks.weather', '[]', '{}', NULL, false, NULL, NULL, true, NULL, 2, NULL),
  (4, 'both days', 'news.tasks.weather', '[]', '{}', NULL, false, NULL, NULL, true, 2, NULL, NULL),
  (5, 'once', 'news.tasks.weather', '[]', '{}', NULL, true, NULL, NULL, true, 1, NULL, NULL),
  (6, 'dawn', 'news.tasks.weather', '[]', '{}', NULL, false, NULL, NULL, true, NULL, NULL, 1),
  (7, 'unmapped', 'news.tasks.other', '[]', '{}', NULL, false, NULL, NULL, true, 1, NULL, NULL),
  (8, 'celery.backend_cleanup', 'celery.backend_cleanup', '[]', '{}', NULL, false, NULL, NULL, true, 1, NULL, NULL);
"""


def test_rows_of_celery_beat_are_imported_and_what_has_no_counterpart_is_named(weather, capsys):
    with connection.cursor() as cursor:
        for statement in BEAT.split(";\n")[:-1]:
            cursor.execute(statement)

    with pytest.raises(CommandError, match="6 schedules left out"):
        call_command(
            "switchyard", "schedules", "import", "--from", "celery-beat", "--actor", "news.tasks.fetch=weather",
            "--json",
        )  # fmt: skip

    answer = json.loads(capsys.readouterr().out)
    assert answer["stored"] == ["by interval", "weather of Bern"]
    assert {name: why.partition(";")[0][:28] for name, why in answer["left"].items()} == {
        "often": "its interval of 30 seconds i", "both days": "days of the month and weekda", "once": "it runs once",
        "dawn": "it is a solar or clocked sch", "unmapped": "schedule unmapped: actor: th",
        "celery.backend_cleanup": "the task celery.backend_clea",
    }  # fmt: skip
    by_cron, by_interval = (StoredSchedule.objects.get(name=name) for name in ("weather of Bern", "by interval"))
    assert (by_cron.cron, by_cron.time_zone) == ("0 */2 * * mon-fri", "Europe/Berlin")
    assert (by_cron.args, by_cron.kwargs, by_interval.every_s) == (["Bern"], {"days": [1]}, 7_200)
    assert by_interval.start.isoformat() == "2026-12-01T06:00:00+00:00"
    assert ScheduleState.objects.get(actor="by interval").paused_at is not None


def test_an_import_without_tables_of_celery_beat_says_so():
    with pytest.raises(CommandError, match="no table django_celery_beat_periodictask"):
        call_command("switchyard", "schedules", "import", "--from", "celery-beat")


def pause(until: datetime.datetime | None, at: datetime.datetime) -> None:
    ScheduleState.objects.update(paused_at=at, paused_until=until, paused_by="a.lind", missed=0)


def test_a_paused_schedule_sends_nothing_and_counts_what_it_missed(yard, clock):
    yard.declare()
    scheduler = yard.scheduler()
    yard.steps(2, scheduler)

    pause(None, clock())
    yard.steps(5, scheduler)

    state = ScheduleState.objects.get()
    assert (yard.sent(), state.missed) == (2, 5)
    assert [tick.outcome for tick in queries.last_ticks("tick")] == ["missed"] * 5 + ["sent"] * 2


def test_a_pause_outlives_its_leader_and_a_time_without_one(yard, clock):
    yard.declare(catch_up="all")
    first = yard.scheduler()
    yard.steps(1, first)
    pause(None, clock())
    yard.steps(2, first)
    yard.lapse()

    clock.forward(minutes=10)
    yard.steps(1)

    assert (yard.sent(), ScheduleState.objects.get().missed) == (1, 13)


def test_a_pause_ends_by_itself_and_sends_no_missed_tick(yard, clock):
    yard.declare(catch_up="all")
    scheduler = yard.scheduler()
    yard.steps(1, scheduler)
    pause(START + 4 * MINUTE, clock())

    yard.steps(6, scheduler)

    state = ScheduleState.objects.get()
    assert (state.paused_at, state.missed) == (None, 3)  # 31, 32, 33
    sent = ScheduleTick.objects.filter(outcome="sent").order_by("due_at").values_list("due_at", flat=True)
    assert [moment.minute for moment in sent] == [30, 34, 35, 36]


def test_a_pause_that_ended_while_no_scheduler_ran_leaves_the_later_ticks_to_catch_up(yard, clock):
    yard.declare(catch_up="all")
    yard.steps(1)
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

    yard.steps(queries.KEPT + 7, scheduler)

    ticks = queries.last_ticks("tick", limit=1_000)
    assert len(ticks) == len(queries.last_ticks("other", limit=1_000)) == queries.KEPT
    assert ticks[0].due_at == clock() - MINUTE and ticks[-1].due_at == clock() - queries.KEPT * MINUTE
    assert all(tick.job_id and tick.lateness_ms == 0 for tick in ticks)


@pytest.fixture
def sweep(request, facilities) -> str:
    """A schedule of this project's own broker."""
    spec = getattr(request, "param", "15 2 * * *")
    dramatiq.actor(lambda: None, actor_name="sweep", queue_name="billing", periodic=cron(spec))
    return "sweep"


EVERY_MINUTE = pytest.mark.parametrize("sweep", ["* * * * *"], indirect=True)


@EVERY_MINUTE
def test_resume_says_how_many_were_missed_and_sends_none(db, sweep, facilities):
    services.pause(sweep, who=WHO, reason="month end")
    minute = timezone.now().replace(second=0, microsecond=0)
    ScheduleState.objects.update(since=minute - 7 * MINUTE)

    missed = services.resume(sweep, who=WHO)
    again = services.resume(sweep, who=WHO)

    assert missed in (7, 8) and again is None  # 8 when a minute ended meanwhile
    state = ScheduleState.objects.get()
    assert state.since >= minute and not state.is_paused(timezone.now())
    assert facilities.transport.stats("billing").live.waiting == 0
    entries = [(entry.act, entry.who, entry.reason, entry.count) for entry in AuditEntry.objects.order_by("id")]
    assert entries[:2] == [("schedule.pause", "a.lind", "month end", 1), ("schedule.resume", "a.lind", "", 1)]


@EVERY_MINUTE
def test_a_run_now_is_kept_beside_the_ticks_also_during_a_pause(db, sweep, facilities):
    services.pause(sweep, who=WHO)

    job_id = services.run_now(sweep, who=WHO)

    (tick,) = queries.last_ticks(sweep)
    assert (tick.outcome, tick.job_id, tick.by) == ("run_now", job_id, "a.lind")
    message = facilities.transport.find_message("billing", job_id)
    assert message.options["origin"] == {"schedule": "sweep", "user": "a.lind"}
    assert AuditEntry.objects.last().act in ("schedule.run", "schedule.pause")


def address(what: str, name: str = "sweep") -> str:
    return reverse(f"switchyard-schedule{what}", args=[name])


@pytest.fixture
def operator() -> Client:
    return staff("view_schedulestate", "run_schedule", "pause_schedule", "view_job")


def test_the_list_shows_every_schedule_with_its_last_ticks(operator, sweep):
    now = timezone.now().replace(second=0, microsecond=0)
    for minutes, outcome, late in ((3, "sent", 900), (2, "sent", 372_000), (1, "missed", None)):
        due = now - datetime.timedelta(minutes=minutes)
        ScheduleTick.objects.create(schedule=sweep, due_at=due, outcome=outcome, lateness_ms=late)
    ScheduleState.objects.create(actor=sweep, spec="15 2 * * *", since=now, last_tick=now, lateness_ms=372_000)

    page = operator.get(LIST).content.decode()

    assert "1 on time, 1 late, 1 missed" in page and "6 min 12 s late" in page
    assert address("-run") in page and f"{address('')}#pause" in page
    assert "No scheduler leads" in page and "manage.py switchyard runscheduler" in page


def test_run_now_answers_at_once_with_a_link_to_the_job(operator, sweep, facilities):
    answer = operator.post(address("-run"), follow=True)

    page = answer.content.decode()
    (tick,) = ScheduleTick.objects.all()
    assert f'href="/admin/switchyard_jobs/job/{tick.job_id}/"' in page
    assert "runs now as job" in page.replace("Runs", "runs")
    assert facilities.transport.stats("billing").live.waiting == 1
    entry = AuditEntry.objects.get()
    found = (entry.act, entry.target, entry.outcome, entry.detail["job"])
    assert found == ("schedule.run", "sweep", "done", tick.job_id)


def test_pause_and_resume_name_who_why_and_until(operator, sweep):
    paused = operator.post(address("-pause"), {"reason": "table <rebuilt>", "until": "2h"}, follow=True)
    page, listed = paused.content.decode(), operator.get(LIST).content.decode()
    ScheduleState.objects.update(missed=4)
    resumed = operator.post(address("-resume"), follow=True).content.decode()

    assert "table &lt;rebuilt&gt;" in page and "Paused by staff" in page and "It has missed" in page
    assert ">Paused</span>" in listed and address("-resume") in listed
    assert "missed 4 ticks, which will not be sent" in resumed
    assert not ScheduleState.objects.get().is_paused(timezone.now())


def test_a_pause_needs_a_reason_and_an_end_in_the_future(operator, sweep):
    answer = operator.post(address("-pause"), {"reason": "", "until": "yesterday"})

    assert answer.status_code == 422
    assert "This field is required" in answer.content.decode() and "it is not a time" in answer.content.decode()
    assert not ScheduleState.objects.filter(paused_at__isnull=False).exists()


def test_the_doctor_and_the_overview_know_a_paused_schedule(sweep, admin_client):
    services.pause(sweep, who=WHO, reason="month end")
    ScheduleState.objects.update(missed=2, since=timezone.now())

    (finding,) = [found for found in look_at_ticks() if found.code == "paused"]
    overview = admin_client.get(reverse("switchyard-operations-live")).content.decode()

    assert "sweep is paused without an end, and has missed 2 ticks" in finding.seen
    assert finding.cause == "a.lind paused it: month end"
    assert finding.next == "manage.py switchyard schedules resume sweep"
    assert "1 schedule is paused" in overview and address("") in overview and "(2 ticks missed)" in overview


def test_the_command_pauses_shows_and_resumes(sweep, capsys):
    def output(*words: str) -> str:
        call_command("switchyard", "schedules", *words)
        return capsys.readouterr().out

    paused = json.loads(output("pause", sweep, "--until", "2h", "--reason", "month end", "--json"))
    listed = output("list")
    job_id = output("run", sweep, "--reason", "now").strip()
    shown = json.loads(output("show", sweep, "--json"))
    resumed = output("resume", sweep)
    again = json.loads(output("resume", sweep, "--json"))

    assert paused["paused_reason"] == "month end" and paused["paused_until"] is not None
    assert "(month end), 0 missed" in listed
    assert [(tick["outcome"], tick["job_id"]) for tick in shown["ticks"]] == [("run_now", job_id)]
    assert "sweep is resumed; it missed 0 ticks" in resumed and again["resumed"] is False
    with pytest.raises(CommandError, match="write a span"):
        call_command("switchyard", "schedules", "pause", sweep, "--until", "soon")
    with pytest.raises(CommandError, match=r"did you mean sweep\?"):
        call_command("switchyard", "schedules", "pause", "sweeep")


def test_a_pauses_reason_drives_no_terminal(sweep, capsys):
    services.pause(sweep, who=Who("a.lind", "page"), reason="\x1b]0;evil\x07", until=None)

    for words in (("list",), ("show", sweep), ("pause", sweep)):
        call_command("switchyard", "schedules", *words)
    printed = capsys.readouterr().out

    assert "\x1b" not in printed and r"(\x1b]0;evil\x07)" in printed


def test_a_schedule_of_code_is_found_without_the_database(sweep, django_assert_num_queries):
    with django_assert_num_queries(0):
        found = services.find(sweep)

    assert found.name == sweep, "it can be run now while the database is away"
