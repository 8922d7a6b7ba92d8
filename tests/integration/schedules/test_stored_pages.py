"""Pages and commands of stored schedules: the typed form, the list with those of code, export and import."""

from __future__ import annotations

import json

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.schedules import queries
from switchyard.schedules.models import ScheduleState, StoredSchedule
from tests.factories.staff import staff

pytestmark = pytest.mark.django_db

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
        ({"cron": "61 2 * * *"}, "never due"),
        ({"cron": "", "every": "90s"}, "write whole minutes"),
        ({"every": "soon"}, "such as 15m"),
        ({"time_zone": "Atlantis"}, "such as Europe/Berlin"),
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
