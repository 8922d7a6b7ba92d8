"""One scheduler leads at a time, in a thread or as a process, and the next takes over; the commands beside it."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dramatiq
import pytest
from django.core.management import call_command
from django.db import connections
from periodiq import cron

from project.config import BASE_DIR
from switchyard.long_running import Leadership
from switchyard.schedules.runner import MaintenanceTask
from tests.waiting import wait_for

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
def start(process_environment, transactional_db, facilities, tmp_path):
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
def test_a_signal_ends_the_scheduler_with_0_and_the_next_leads_at_once(number, start, facilities):
    records = facilities.records
    lock = records.keys.lock("scheduler")
    leader, log = start()
    wait_for(lambda: "leading" in log(), what="it leads")
    _, heir_log = start()
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
