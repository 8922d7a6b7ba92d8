"""Ticks of code and rows by five schedulers whose leaders are killed at work: each of 10,000 is sent once.

In ten pieces, each of 100 minutes, so that a run that was cut off goes on with ``-k piece-7``.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import pytest

from project.config import BASE_DIR
from switchyard.schedules.models import ScheduleState, StoredSchedule
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
