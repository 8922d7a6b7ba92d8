"""One scheduler leads at a time and the next takes over; each tick is sent once, whichever leads and whichever dies."""

import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dramatiq
import pytest
from django.core.management import call_command
from django.db import connections
from periodiq import cron

from project.config import BASE_DIR
from switchyard.long_running import Leadership
from switchyard.schedules import queries, services
from switchyard.schedules.models import ScheduleState, ScheduleTick, StoredSchedule
from switchyard.schedules.registry import schedules
from switchyard.schedules.runner import MaintenanceTask
from switchyard.schedules.services import job_id_of
from tests.waiting import wait_for

MINUTE = datetime.timedelta(minutes=1)
OF_EACH, STEP = 5, 20
PIECES, MINUTES = 10, 100
# The clocks of the rows' zone go back in the fourth piece.
START = datetime.datetime(2026, 10, 24, 19, 30, tzinfo=datetime.UTC)
NAMES = [f"{kind}-{number}" for kind in ("code", "row") for number in range(OF_EACH)]
# Key of the clock: seconds since the epoch, which the test moves on.
CLOCK = "many-ticks-clock"
SCHEDULER = f"""
import datetime, threading
import django
django.setup()
import dramatiq
from periodiq import cron
from switchyard.schedules.runner import Scheduler

broker, options = dramatiq.get_broker(), {{"queue_name": "default", "history": "none"}}
broker.actors.clear()
for number in range({OF_EACH}):
    dramatiq.actor(lambda: None, broker=broker, actor_name=f"code-{{number}}", periodic=cron("* * * * *"),
                   catch_up="all", **options)
dramatiq.actor(lambda customer=0: None, broker=broker, actor_name="work", schedulable=True, **options)

def now():
    return datetime.datetime.fromtimestamp(int(broker.client.get("{CLOCK}")), datetime.UTC)

Scheduler(now=now, lease_s=1.0, renew_s=0.2, poll_s=0.1).run(threading.Event())
"""


def key_of(yard, name: str = "tick") -> str:
    """Return the key of the tick of now."""
    return yard.facilities.records.keys.tick(name, yard.clock().strftime("%Y-%m-%dT%H:%MZ"))


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
    yard.broker.client.set(key_of(yard), services.CLAIMED)

    yard.scheduler().step()

    assert yard.sent() == 1


def test_a_tick_that_was_sent_but_not_marked_is_not_sent_again(yard, clock):
    yard.declare()
    (schedule,) = schedules()
    services.load_state(schedule, clock())
    services.send_tick(schedule, clock(), clock())
    yard.broker.client.set(key_of(yard), services.CLAIMED)
    ScheduleState.objects.update(since=clock() - MINUTE)

    yard.scheduler().step()

    assert yard.sent() == 1
    assert ScheduleState.objects.get().since == clock()


def test_a_tick_is_kept_in_mind_for_seven_days(yard, clock):
    yard.declare()
    yard.scheduler().step()

    assert 7 * 24 * 3600 - 60 < yard.broker.client.ttl(key_of(yard)) <= 7 * 24 * 3600


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
    assert yard.broker.client.get(key_of(yard, "daily")) == services.SENT


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


class Schedulers:
    """Five processes; a killed one is followed by a new one."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment, self.folder = environment, folder
        self.count = self.kills = 0
        self.running = [self.start() for _ in range(5)]

    def start(self) -> tuple[subprocess.Popen[bytes], Path]:
        log = self.folder / f"{self.count}.log"
        self.count += 1
        with log.open("wb") as output:
            command = [sys.executable, "-c", SCHEDULER]
            return subprocess.Popen(command, env=self.environment, stdout=output, stderr=output, cwd=BASE_DIR), log

    def kill_the_leader(self) -> None:
        """Kill the process that said last that it leads; none during a change of leaders."""
        for place, (process, log) in enumerate(self.running):
            if log.read_text().rpartition("lead")[2].startswith("ing "):
                process.kill()
                process.wait()
                self.running[place] = self.start()
                self.kills += 1

    def stop(self) -> None:
        for process, _ in self.running:
            process.kill()
            process.wait()


@pytest.fixture(params=range(PIECES), ids=lambda number: f"piece-{number}")
def start(request) -> datetime.datetime:
    return START + request.param * MINUTES * MINUTE


@pytest.fixture
def schedulers(process_environment, transactional_db, facilities, tmp_path, start) -> Iterator[Schedulers]:
    for name in NAMES[OF_EACH:]:
        StoredSchedule.objects.create(
            name=name, actor="work", cron="* * * * *", catch_up="all", time_zone="Europe/Berlin"
        )
    facilities.records.calls.client.set(CLOCK, int(start.timestamp()))
    environment = {**process_environment, "DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"]}
    running = Schedulers(environment, tmp_path)
    yield running
    running.stop()


def done_until(moment: datetime.datetime) -> bool:
    return ScheduleState.objects.filter(since__gte=moment).count() == len(NAMES)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_ticks_are_each_sent_once_while_leaders_are_killed_at_work(start, schedulers, facilities):
    client, moment = facilities.records.calls.client, start
    wait_for(lambda: done_until(start), 200, what="the first tick of every schedule")

    for _ in range(MINUTES // STEP):
        before, moment = moment, moment + STEP * MINUTE
        client.set(CLOCK, int(moment.timestamp()))
        wait_for(lambda: ScheduleState.objects.filter(since__gt=before).exists(), 200, what="a tick")  # noqa: B023
        schedulers.kill_the_leader()
        wait_for(lambda: done_until(moment), 200, what=f"the ticks until {moment}")  # noqa: B023

    broker = dramatiq.get_broker()
    sent = {found.decode() for found in broker.client.hkeys(broker.keys.queue("default").bodies)}
    minutes = [start + number * MINUTE for number in range(MINUTES + 1)]
    assert sent == {job_id_of(name, minute) for name in NAMES for minute in minutes}
    assert facilities.transport.stats("default").live.waiting == len(sent) > MINUTES * len(NAMES)
    assert schedulers.kills >= MINUTES // STEP // 2, "too few leaders were killed to prove anything"


def outcomes(name: str = "tick") -> list[str]:
    return list(ScheduleTick.objects.filter(schedule=name).order_by("due_at").values_list("outcome", flat=True))


class LongJob:
    """An actor's function whose runs go on until they are told to end."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []
        self.may_end = threading.Event()

    def __call__(self, customer=0) -> None:
        from switchyard.jobs.services import check_cancelled, current_job_id

        job_id = current_job_id() or ""
        self.started.append(job_id)
        while not self.may_end.wait(0.02):
            check_cancelled()
        self.ended.append(job_id)


@pytest.fixture
def job() -> LongJob:
    return LongJob()


@pytest.mark.django_db(transaction=True)
def test_skip_sends_nothing_while_the_job_before_runs_longer_than_the_interval(yard, clock, job, run_worker):
    yard.actor(function=job)
    yard.store(overlap="skip")
    scheduler = yard.scheduler()

    with run_worker("default", broker=yard.broker):
        scheduler.step()
        wait_for(lambda: job.started, what="the first job to start")
        for _ in range(3):
            clock.forward(minutes=1)
            scheduler.step()
        skipped = outcomes()
        first = ScheduleState.objects.get().last_job_id
        job.may_end.set()
        wait_for(lambda: yard.facilities.records.read(first).ended, what="the first job to end")
        clock.forward(minutes=1)
        scheduler.step()
        wait_for(lambda: len(job.ended) == 2, what="the next job to end")

    assert skipped == ["sent", "skipped", "skipped", "skipped"]
    assert outcomes()[-1] == "sent" and len(job.started) == 2


@pytest.mark.django_db(transaction=True)
def test_replace_cancels_the_job_before_and_runs_the_next(yard, clock, job, run_worker):
    yard.actor(function=job)
    yard.store(overlap="replace")
    scheduler = yard.scheduler()

    with run_worker("default", broker=yard.broker):
        scheduler.step()
        wait_for(lambda: job.started, what="the first job to start")
        first = ScheduleState.objects.get().last_job_id
        clock.forward(minutes=1)
        scheduler.step()
        wait_for(lambda: yard.facilities.records.read(first).state == "cancelled", what="the first job to be cancelled")
        wait_for(lambda: len(job.started) == 2, what="the next job to start")
        job.may_end.set()
        wait_for(lambda: job.ended, what="the next job to end")

    assert outcomes() == ["sent", "sent"] and first not in job.ended


def test_allow_sends_each_tick_and_skip_knows_a_job_that_still_waits(yard, clock):
    yard.actor()
    yard.store("freely")
    yard.store("alone", overlap="skip")

    yard.steps(3)

    assert outcomes("freely") == ["sent"] * 3 and outcomes("alone") == ["sent", "skipped", "skipped"]


def test_skip_knows_a_job_whose_scheduler_died_before_it_stored_it(yard, clock, monkeypatch):
    yard.actor()
    yard.store(overlap="skip")
    dead, heir = yard.scheduler(), yard.scheduler()
    monkeypatch.setattr(services.queries, "keep", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        dead.step()
    monkeypatch.undo()
    yard.lapse()
    clock.forward(minutes=1)

    heir.step()

    assert yard.sent() == 1 and outcomes() == ["skipped"]


def test_a_tick_that_is_noticed_after_its_deadline_is_dropped_and_said(yard, clock):
    yard.actor()
    yard.store(deadline_s=120, catch_up="all")
    yard.scheduler().step()
    yard.lapse()

    clock.forward(minutes=5, seconds=30)
    yard.scheduler().step()

    assert outcomes() == ["sent", *["dropped"] * 3, "sent", "sent"]
    assert yard.sent() == 3
    dropped = ScheduleTick.objects.filter(outcome="dropped").first()
    assert dropped.get_outcome_display() == "Dropped: later than its deadline" and dropped.lateness_ms > 120_000
    assert ScheduleState.objects.get().since == clock() - datetime.timedelta(seconds=30)


LEASE_S = 2.0


def leadership(facilities, **options) -> Leadership:
    records = facilities.records
    return Leadership(records.calls, records.keys, lease_s=LEASE_S, renew_s=0.1, **options)


def test_who_dies_is_followed_when_the_lease_ran_out(facilities):
    dead, heir = leadership(facilities), leadership(facilities)
    started_s = time.monotonic()

    assert dead.acquire_or_renew() and not heir.acquire_or_renew()
    wait_for(heir.acquire_or_renew)

    assert time.monotonic() - started_s >= LEASE_S * 0.9
    assert not dead.held(), "the old leader knows by its own clock"


def test_a_leader_that_renews_keeps_leading(facilities):
    leader, other = leadership(facilities), leadership(facilities)
    leader.acquire_or_renew()
    until_s = time.monotonic() + 1.5 * LEASE_S

    def renewed_long_enough() -> bool:
        assert leader.acquire_or_renew() and not other.acquire_or_renew()
        return time.monotonic() > until_s

    wait_for(renewed_long_enough)


def test_who_leaves_is_followed_at_once(facilities):
    leader, heir = leadership(facilities), leadership(facilities)
    leader.acquire_or_renew()

    leader.release()

    assert heir.acquire_or_renew() and not leader.held()


def test_an_old_leader_cannot_give_back_what_another_holds(facilities):
    old, heir, third = (leadership(facilities) for _ in range(3))
    old.acquire_or_renew()
    facilities.records.calls.client.delete(facilities.records.keys.lock("scheduler"))
    heir.acquire_or_renew()

    old.release()

    assert not third.acquire_or_renew()


@pytest.mark.parametrize(("lease_s", "renew_s"), [(15, 15), (15, 0), (1, 5)])
def test_a_lease_that_cannot_be_renewed_in_time_is_refused(lease_s, renew_s, facilities):
    with pytest.raises(ValueError, match="renew_s must be between 0 and lease_s"):
        Leadership(facilities.records.calls, facilities.records.keys, lease_s=lease_s, renew_s=renew_s)


@contextmanager
def running(scheduler) -> Iterator[None]:
    """Run a scheduler in a thread, whose connections to the database end with it."""

    def run_and_close() -> None:
        scheduler.run(stop)
        connections.close_all()

    stop = threading.Event()
    thread = threading.Thread(target=run_and_close)
    thread.start()
    yield
    stop.set()
    thread.join(30)


@pytest.mark.django_db(transaction=True)
def test_a_scheduler_stops_at_once_and_lets_go(yard):
    yard.declare()
    scheduler = yard.scheduler(poll_s=60.0)
    with running(scheduler):
        wait_for(scheduler.leadership.held)

    assert yard.scheduler().leadership.acquire_or_renew()


def running_tasks() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("maintenance ")]


@pytest.mark.django_db(transaction=True)
def test_maintenance_tasks_run_while_leading_go_on_after_a_failure_and_end_with_the_scheduler(yard):
    done: list[str] = []

    def fails() -> None:
        done.append("tried")
        raise ValueError("a chore that fails")

    tasks = [MaintenanceTask("fails", 0.01, fails), MaintenanceTask("works", 0.01, lambda: done.append("worked"))]
    with running(yard.scheduler(maintenance_tasks=tasks)):
        wait_for(lambda: done.count("tried") > 3 and done.count("worked") > 3)
        assert len(running_tasks()) == len(tasks)

    assert not running_tasks()


@pytest.mark.django_db(transaction=True)
def test_who_stands_by_runs_no_maintenance_tasks_but_those_that_run_always(yard):
    assert yard.scheduler().leadership.acquire_or_renew()
    done, always, steps = list[str](), threading.Event(), list[int]()
    tasks = [
        MaintenanceTask("never", 0.01, lambda: done.append("?")),
        MaintenanceTask("always", 0.01, always.set, always=True),
    ]
    standby = yard.scheduler(maintenance_tasks=tasks, poll_s=0.01)
    step = standby.step
    standby.step = lambda: (step(), steps.append(1))
    with running(standby):
        wait_for(lambda: len(steps) > 10)
        ran = always.wait(30)

    assert (done, ran, standby.leadership.held()) == ([], True, False)


@pytest.fixture
def start_scheduler(process_environment, transactional_db, facilities, tmp_path):
    """Start ``manage.py switchyard runscheduler``; returns the process and a function that reads its log."""
    started = []

    def run():
        log = tmp_path / f"scheduler-{len(started)}.log"
        with log.open("wb") as output:
            command = [sys.executable, str(BASE_DIR / "manage.py"), "runscheduler"]
            process = subprocess.Popen(command, env=process_environment, stdout=output, stderr=output)
        started.append(process)
        return process, log.read_text

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_signal_ends_the_scheduler_with_0_and_the_next_leads_at_once(number, start_scheduler, facilities):
    records = facilities.records
    lock = records.keys.lock("scheduler")
    leader, log = start_scheduler()
    wait_for(lambda: "leading" in log(), what="it leads")
    _, heir_log = start_scheduler()
    wait_for(lambda: "scheduler started" in heir_log(), what="the other stands by")

    leads = records.calls.client.get(lock)
    leader.send_signal(number)
    assert leader.wait(timeout=60) == 0
    assert records.calls.client.get(lock) != leads, "the next would have to wait for the lease to run out"
    assert "scheduler stopped" in log() and "Traceback" not in log()
    wait_for(lambda: "leading" in heir_log(), what="the other leads")


@pytest.fixture
def nightly(facilities):
    """A periodic actor of this project's own broker."""
    dramatiq.actor(lambda: None, actor_name="sweep_the_yard", queue_name="billing", periodic=cron("15 2 * * *"))
    return "sweep_the_yard"


def test_the_list_names_every_schedule(db, nightly, capsys):
    call_command("switchyard", "schedules", "list", "--json")
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    call_command("switchyard", "schedules", "list")
    table = capsys.readouterr().out

    row = rows[nightly]
    assert (row["spec"], row["queue"], row["catch_up"]) == ("15 2 * * *", "billing", "once")
    assert row["last_tick"] is None and row["next_tick"].endswith("T02:15:00.000000Z")
    assert any(line.split()[:6] == [nightly, "15", "2", "*", "*", "*"] for line in table.splitlines())
    assert "never yet" in table


def test_a_schedule_can_be_run_now(db, nightly, facilities, capsys):
    call_command("switchyard", "schedules", "run", nightly)

    job = facilities.records.read(capsys.readouterr().out.strip())
    assert (job.actor, job.state) == (nightly, "queued")

    call_command("switchyard", "schedules", "run", nightly, "--json")
    assert facilities.records.read(json.loads(capsys.readouterr().out)["id"]).actor == nightly


def test_a_schedule_that_is_never_due_stops_the_start_with_78(process_environment, tmp_path, transactional_db):
    (tmp_path / "wrong_settings.py").write_text(
        "from project.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'wrong_app']\n"
    )
    (tmp_path / "wrong_app").mkdir()
    (tmp_path / "wrong_app" / "__init__.py").touch()
    (tmp_path / "wrong_app" / "actors.py").write_text(
        "import dramatiq\nfrom periodiq import cron\n"
        "@dramatiq.actor(queue_name='default', periodic=cron('0 0 31 2 *'))\ndef never() -> None: ...\n"
    )
    environment = {**process_environment, "PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "wrong_settings"}

    done = subprocess.run(
        [sys.executable, str(BASE_DIR / "manage.py"), "runscheduler"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 78
    where = f"actor never ({tmp_path}/wrong_app/actors.py:3)"
    assert f"{where}: the schedule '0 0 31 2 *' is never due" in done.stderr and "switchyard.E050" in done.stderr
