"""Ticks while the job of the last one runs, and ticks that a scheduler notices late."""

from __future__ import annotations

import datetime
import threading

import pytest

from switchyard.schedules import services
from switchyard.schedules.models import ScheduleState, ScheduleTick
from tests.waiting import wait_for


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
    scheduler = yard.scheduler()

    for _ in range(3):
        scheduler.step()
        clock.forward(minutes=1)

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
