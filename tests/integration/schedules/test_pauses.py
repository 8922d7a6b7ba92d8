"""The pages of schedules and their acts; a paused one sends nothing and says how many ticks it missed."""

import datetime
import json

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from periodiq import cron

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.operations.findings.records import look_at_ticks
from switchyard.schedules import queries, services
from switchyard.schedules.models import ScheduleState, ScheduleTick
from tests.factories.staff import staff
from tests.integration.schedules.conftest import START

pytestmark = pytest.mark.django_db

MINUTE = datetime.timedelta(minutes=1)
WHO = Who("a.lind", "page")
LIST = reverse("switchyard-schedules")


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
    outcomes = [tick.outcome for tick in queries.last_ticks("tick")]
    assert outcomes == ["missed"] * 5 + ["sent"] * 2


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
