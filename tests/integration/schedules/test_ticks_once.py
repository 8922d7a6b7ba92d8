"""Each tick is sent once, whichever scheduler leads, whichever process dies, and while the job of the last one runs."""

import datetime
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import pytest

from project.config import BASE_DIR
from switchyard.schedules import queries, services
from switchyard.schedules.models import ScheduleState, ScheduleTick, StoredSchedule
from switchyard.schedules.registry import schedules
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
