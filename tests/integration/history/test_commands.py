"""The writer as a process, killed, stopped and without its database; the commands that read what it wrote."""

import os
import random
import signal
import subprocess
import sys

import psutil
import pytest
from django.core.management import call_command

from project.config import BASE_DIR
from switchyard.broker.keys import Keys
from switchyard.history.models import AttemptRow, JobRow, SearchValue
from switchyard.history.writer import AUTOGROUP
from switchyard.long_running import HISTORY_WRITER
from tests.environment import POSTGRES
from tests.factories.commands import json_of, output_of
from tests.integration.history.conftest import Put, ended_job
from tests.integration.history.rows import BASE_MS, job_row
from tests.processes import titles_below
from tests.waiting import wait_for

STREAM = Keys().queue("default").history


@pytest.fixture
def start(process_environment, request, facilities, tmp_path):
    """Start ``manage.py`` with arguments; the log is ``tmp_path / "log"``."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> subprocess.Popen[bytes]:
        environment, of = dict(process_environment), request.fixturenames
        if "postgres" in of or (
            "database" in of and request.getfixturevalue("database") == "postgres" and not POSTGRES
        ):
            environment["DATABASE_URL"] = request.getfixturevalue("postgres").url
        with (tmp_path / "log").open("ab") as output:
            command = [sys.executable, str(BASE_DIR / "manage.py"), *arguments]
            started.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def put_many(put: Put, count: int, *, first: int = 0) -> None:
    """Put jobs into the stream: each second one failed once before."""
    for start_at in range(first, first + count, 100):
        numbers = range(start_at, start_at + 100)
        put(*(ended_job(n, state="retrying", error="KeyError", options={"tags": ["t"]}) for n in numbers if n % 2))
        put(*(ended_job(n, attempt=1 + n % 2, at=5, options={"tags": ["t"]}) for n in numbers))


def test_a_killed_writer_loses_and_doubles_no_row(database, start, put, valkey):
    rng, total, kills = random.Random(3), 1_000, 0
    put_many(put, total)
    while valkey.xlen(STREAM):
        process = start("runhistory")
        goal = JobRow.objects.count() + rng.randrange(100, 500)
        wait_for(lambda goal=goal: JobRow.objects.count() >= goal or not valkey.xlen(STREAM), timeout_s=60)
        process.kill()
        process.wait()
        kills += 1
        valkey.delete(Keys().lock(HISTORY_WRITER))  # as if its lease had expired

    assert kills >= 2
    assert JobRow.objects.count() == JobRow.objects.filter(state="succeeded", finished_at=BASE_MS + 5).count() == total
    assert AttemptRow.objects.count() == JobRow.objects.filter(attempts=2, failed_at=BASE_MS).count() == total // 2
    assert SearchValue.objects.count() == total


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_signal_ends_the_writer_with_0(number, transactional_db, start, put, valkey, tmp_path):
    put(ended_job())
    writer = start("runhistory")
    wait_for(lambda: JobRow.objects.exists() and not valkey.xlen(STREAM))
    assert psutil.Process(writer.pid).nice() == max(19 if POSTGRES else 5, psutil.Process().nice())

    writer.send_signal(number)

    assert writer.wait(60) == 0
    log = (tmp_path / "log").read_text()
    assert "history writer stopped" in log and "Traceback" not in log
    assert not valkey.exists(Keys().lock(HISTORY_WRITER)), "the next one leads at once"


def test_runpools_starts_a_writer_and_starts_it_again_when_it_dies(transactional_db, start, put, valkey):
    pools = start("runpools", "urgent", "--grace=1")
    first = wait_for(lambda: titles_below(pools.pid).get("history"))
    put(ended_job(1))
    wait_for(lambda: JobRow.objects.count() == 1)

    os.kill(first, signal.SIGKILL)

    second = wait_for(lambda: titles_below(pools.pid).get("history") not in (None, first))
    valkey.delete(Keys().lock(HISTORY_WRITER))
    put(ended_job(2))
    wait_for(lambda: JobRow.objects.count() == 2)
    assert second
    pools.send_signal(signal.SIGTERM)
    assert pools.wait(60) == 0


def test_a_database_that_is_away_costs_nothing_but_time(on_postgres, postgres, start, put, valkey, tmp_path):
    start("runhistory")
    put_many(put, 200)
    wait_for(lambda: not valkey.xlen(STREAM))
    postgres.stop()
    try:
        put_many(put, 400, first=200)
        wait_for(lambda: "failing, will be retried" in (tmp_path / "log").read_text(), timeout_s=60)
        assert valkey.xlen(STREAM), "they wait in the broker"
    finally:
        postgres.start()

    wait_for(lambda: not valkey.xlen(STREAM))

    rows = postgres.execute("SELECT count(*), count(failed_at) FROM switchyard_history_jobrow")
    assert rows == [(600, 300)]
    assert (tmp_path / "log").read_text().count("failing, will be retried") <= 3


@pytest.mark.django_db
def test_history_list_filters_and_prints_json():
    wanted = job_row(
        state="dead", queue="slow", owner="shop", values={"customer_id": "42"}, error_type="KeyError",
        fingerprint="beef",
    )  # fmt: skip
    job_row(1)
    conditions = ["--state", "dead", "--queue", "slow", "--owner", "shop", "--argument", "customer_id=42", "--error"]

    found = json_of("history", "list", *conditions, "KeyError", "--failures")

    assert [job["id"] for job in found["jobs"]] == [wanted.job_id] and found["after"] is None
    assert found["jobs"][0]["error"] == {"type": "KeyError", "message": ""}


@pytest.mark.django_db
def test_jobs_show_prints_a_job_of_the_history_with_its_attempts():
    row = job_row(state="dead", reason="exhausted", arguments='{"customer_id": 42}', attempts=2)
    AttemptRow.objects.create(
        job_id=row.job_id, generation=0, attempt=1, state="retrying", lane="default", started_at=BASE_MS - 5,
        finished_at=BASE_MS, error_type="KeyError", error_message="'x'", worker="host/1",
        logs="first line\nsecond line",
    )  # fmt: skip

    text = output_of("jobs", "show", row.job_id)
    found = json_of("jobs", "show", row.job_id)

    assert "exhausted" in text and "KeyError: 'x'" in text and "  second line" in text
    assert found["arguments"] == {"customer_id": 42} and found["runs"][0]["logs"] == "first line\nsecond line"


@pytest.mark.django_db
def test_texts_of_a_job_send_no_control_characters_to_the_terminal(capsys):
    evil = "\x1b]0;owned\x07\x9b2J"
    row = job_row(state="dead", actor=evil, error_type=evil, error_message=evil, worker=evil, owner=evil)
    AttemptRow.objects.create(
        job_id=row.job_id, generation=0, attempt=1, state="dead", started_at=1, finished_at=row.finished_at,
        error_type=evil, error_message=evil, worker=evil, logs=f"{evil}\nsecond line",
    )  # fmt: skip

    call_command("switchyard", "history", "list")
    call_command("switchyard", "jobs", "show", row.job_id)
    call_command("switchyard", "jobs", "list")

    printed = capsys.readouterr().out
    assert printed.count(r"\x1b]0;owned") > 5 and "second line" in printed
    assert not {letter for letter in printed if not letter.isprintable()} - {"\n"}


PROGRAM = """
import os
import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()

from switchyard.history.writer import AUTOGROUP, yield_to_other_work

before = AUTOGROUP.read_text() if AUTOGROUP.exists() else ""
yield_to_other_work()
after = AUTOGROUP.read_text() if AUTOGROUP.exists() else ""
print(os.getpriority(os.PRIO_PROCESS, 0), "same" if before == after else after.split()[-1])
"""


@pytest.mark.parametrize(
    ("database_url", "leads", "started", "nice"),
    [
        ("postgres://ada@127.0.0.1/yard", True, 0, 19),
        ("postgres://ada@127.0.0.1/yard", False, 0, 19),
        ("", True, 0, 5),
        ("", True, 10, 10),
    ],
    ids=["postgres", "postgres, no leader", "sqlite, whose lock stops all others", "started lower than that"],
)
def test_the_priority_of_a_session_is_lowered_by_its_leader_alone(database_url, leads, started, nice, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    of_a_child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PROGRAM!r}], check=True)"
    own = os.getpriority(os.PRIO_PROCESS, 0)
    lowered = ["nice", "-n", str(max(started - own, 0))]
    command = [*lowered, sys.executable, "-c", PROGRAM if leads else of_a_child]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, start_new_session=True, check=True)

    expected = str(max(nice, own))
    assert ran.stdout.split() == [expected, expected if leads and AUTOGROUP.exists() else "same"]
