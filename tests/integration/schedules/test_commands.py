"""The scheduler as a process, and the commands beside it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import dramatiq
import pytest
from django.core.management import call_command
from periodiq import cron

from project.config import BASE_DIR
from tests.waiting import wait_for


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
    code = leader.wait(timeout=60)

    assert code == 0
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
