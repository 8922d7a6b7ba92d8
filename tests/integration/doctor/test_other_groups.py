"""The doctor's command, and its groups of settings, disk, records and databases (a real SQLite and PostgreSQL)."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.db.utils import ConnectionHandler
from django.utils import timezone

import switchyard
from project.topology import YARD
from switchyard.alerts.models import Alert, Delivery
from switchyard.broker.keys import Keys
from switchyard.broker.redis import acl
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.topology import Yard
from switchyard.dead_letters.projection import project
from switchyard.long_running import SCHEDULER, Leadership
from switchyard.operations.findings import configuration, database, disk, examine, records
from switchyard.operations.findings.examine import run_checks
from switchyard.operations.findings.finding import Finding, FindingGroup, worst
from switchyard.schedules.models import ScheduleState, ScheduleTick, StoredSchedule
from tests.chaos.postgres import PostgresUnderTest
from tests.chaos.server import SERVER_NAMES, server_binary
from tests.factories.letters import letter
from tests.integration.doctor.conftest import of
from tests.integration.jobs.history_rows import job_row
from tests.tls import GuardedServer
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
Alerted = Callable[..., None]


def test_a_wrong_yard_is_named_with_its_fix(configure):
    queues = (*YARD.queues[1:],)
    configure(topology=Yard(queues, YARD.pools))

    found = of(configuration.look(), "error")

    assert "urgent" in found["switchyard.E001"].seen
    assert "in the topology" in found["switchyard.E001"].next


def test_development_settings_on_something_deployed_are_an_error(configure):
    configure(DEBUG=True, broker_url="redis://:canary@valkey.example.com/0")

    found = of(configuration.look(), "error")["debug"]

    assert "SWITCHYARD_BROKER_URL" in found.seen and "canary" not in str(found)
    assert "DJANGO_DEBUG=0" in found.next
    configure(variables=())  # a project that says so in its settings
    assert "debug" not in of(configuration.look(), "error")


def test_production_with_its_defaults_is_warned_of_them(configure):
    configure(DEBUG=False, alert_urls=())

    found = of(configuration.look(), "warning")

    assert "no_alert_urls" in found
    assert ("sqlite" in found) == (connection.vendor == "sqlite")


@pytest.mark.parametrize(("free", "severity"), [(999_000_000, "warning"), (99_000_000, "error")])
def test_a_disk_that_fills_up_is_told_before_it_is_full(free, severity, monkeypatch):
    usage = SimpleNamespace(total=10**12, used=10**12 - free, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)

    assert of(disk.look(), severity)["low"].next.startswith("du -xh")
    # A container's folder in memory is this small, and has room.
    usage.total = free
    assert ("low" in of(disk.look(), severity)) == (severity == "error")


def test_a_metrics_folder_without_room_is_a_warning(configure, monkeypatch):
    """Alone, where it has a file system of its own, such as one in memory."""
    configure(metrics_dir=Path("/"))
    free = {Path("/"): 64_000}
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(total=10**12, free=free.get(folder, 10**11))
    )

    found = of(disk.look(), "warning")

    assert found["low"].subject == "metrics" and "the metrics folder has" in found["low"].seen
    free.clear()
    assert not of(disk.look(), "warning")


def test_a_state_folder_that_is_not_there_is_a_warning(configure, tmp_path):
    configure(state_dir=tmp_path / "nowhere")

    assert of(disk.look(), "warning")["folder"].next == f"mkdir -p {tmp_path / 'nowhere'}"


def test_no_scheduler_is_a_warning_a_leader_is_told_and_a_lease_that_never_lapses_is_an_error(facilities, valkey):
    assert of(records.look_at_leader(), "warning")["down"].next == "manage.py switchyard runscheduler"

    Leadership(RedisCalls(valkey), Keys()).acquire_or_renew()
    assert "a scheduler leads" in of(records.look_at_leader(), "ok")["ok"].seen

    valkey.set(Keys().lock(SCHEDULER), "somebody")
    assert of(records.look_at_leader(), "error")["lease"].next == f"valkey-cli DEL {Keys().lock(SCHEDULER)}"


@pytest.fixture
def schedule() -> str:
    """The name of one of the project's own schedules."""
    return records.schedules()[0].name


def test_a_tick_that_was_not_sent_is_a_warning(schedule):
    ScheduleState.objects.create(actor=schedule, spec="", since=timezone.now() - timedelta(days=400))

    found = of(records.look_at_ticks(), "warning")["late"]

    assert found.subject == schedule and "was not sent" in found.seen


def test_a_schedule_whose_ticks_cancel_all_of_its_jobs_is_a_warning():
    row = {"actor": "export_everything", "args": ["csv"], "every_s": 60, "overlap": "replace"}
    StoredSchedule.objects.create(name="sync", **row)
    ScheduleState.objects.create(actor="sync", spec="", since=timezone.now())
    for number in range(4):
        due_at = timezone.now() - timedelta(minutes=4 - number)
        ScheduleTick.objects.create(schedule="sync", due_at=due_at, outcome="sent", job_id=f"job-{number}")
        if number:
            job_row(job_id=f"job-{number - 1}", actor="export_everything", state="cancelled")

    found = of(records.look_at_ticks(), "warning")["replaced"]

    assert found.seen == "every job of the schedule sync is cancelled by the next tick: the last 3 were"
    StoredSchedule.objects.update(overlap="skip")
    assert "replaced" not in of(records.look_at_ticks(), "warning")


def test_new_dead_letters_are_a_warning_with_their_cause(facilities):
    assert of(records.look_at_dead_letters(), "ok")
    dead = letter()
    project(dead)

    found = of(records.look_at_dead_letters(), "warning")["new"]

    assert dead.exception in found.seen and dead.actor in found.seen
    assert found.next == f"manage.py switchyard deadletters list --group {dead.fingerprint}"


@pytest.fixture
def alerted() -> Alerted:
    """An alert went to a channel, so many seconds ago."""

    def write(state: str, ago_s: int, *, error: str = "", severity: str = "warning", **fields: Any) -> None:
        at = timezone.now() - timedelta(seconds=ago_s)
        alert = Alert.objects.create(
            fingerprint=f"f{ago_s}", kind="k", title="t", severity=severity, sample="s", count=1, first_at=at,
            last_at=at,
        )  # fmt: skip
        sent_at = at if state == "sent" else None
        Delivery.objects.create(
            alert=alert, channel="hook", reported=0, count=1, state=state, tries=1, next_try_at=at, error=error,
            sent_at=sent_at, **fields,
        )  # fmt: skip

    return write


def test_a_channel_that_takes_nothing_is_a_warning_until_it_took_one(alerted):
    alerted("sent", 600)
    alerted("given_up", 300, error="answered 500")

    found = of(records.look_at_alerts(), "warning")["channel"]
    alerted("sent", 2)
    alerted("pending", -10, error="answered 500")  # the third retry comes 45 s after it
    Delivery.objects.filter(state="pending").update(tries=3)

    assert found.subject == "hook"
    assert "1 alert given up" in found.seen and "answered 500" in found.seen
    assert "channel" not in of(records.look_at_alerts(), "warning")


def test_critical_alerts_that_nobody_acknowledged_are_a_warning_but_for_a_finding_alone(alerted):
    for _ in range(2):
        alerted("sent", 60, severity="critical")
    Alert.objects.filter(pk=Alert.objects.latest("pk").pk).update(kind="finding")
    found = of(records.look_at_alerts(), "warning")["open"]
    assert "2 critical alerts are not acknowledged" in found.seen and "/admin/switchyard_alerts/alert/" in found.next

    Alert.objects.exclude(kind="finding").delete()

    assert "open" not in of(records.look_at_alerts(), "warning")


def look(deadline_s: float = 20.0) -> list[Finding]:
    return run_checks(FindingGroup("database"), lambda: [*database.look(), *database.look_at_migrations()], deadline_s)


def test_a_migrated_database_is_told_with_its_figures():
    findings = look()

    assert "ok" in {finding.code for finding in findings} <= {"ok", "connections"}
    assert len(findings) == 3


@pytest.mark.sqlite
def test_a_file_that_is_not_there_or_empty_is_an_error_with_the_first_migration_and_is_not_made(tmp_path, monkeypatch):
    path = tmp_path / "other.sqlite3"
    monkeypatch.setitem(connection.settings_dict, "NAME", str(path))
    assert list(of(look(), "error")) == ["unmigrated"]
    assert not path.exists()

    path.touch()

    found = of(look(), "error")["unmigrated"]
    assert "migrations are not applied" in found.seen
    assert found.next == "manage.py migrate"


@pytest.mark.sqlite
def test_a_writers_lock_that_is_never_free_is_an_error():
    with contextlib.closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")

        found = of(look(), "error")["locked"]

    assert found.seen.startswith(f"the database is locked, by pid {os.getpid()} (")
    assert f"kill -TERM {os.getpid()}" in found.next


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresUnderTest]:
    with PostgresUnderTest(connections=100) as server:
        yield server


@pytest.fixture
def on_postgres(postgres: PostgresUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The database is PostgreSQL; ``on_postgres(USER=…)`` makes it wrong."""
    opened: list[Any] = []

    def point(**options: Any) -> None:
        where = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "yard", "HOST": "127.0.0.1"}
        handler = ConnectionHandler({"default": {**where, "PORT": str(postgres.port), **options}})
        handler["default"].inc_thread_sharing()
        opened.append(handler["default"])
        monkeypatch.setattr(database, "connection", handler["default"])

    point()
    yield point
    for one in opened:
        one.close()


def test_postgres_without_room_for_all_pools_is_a_warning(on_postgres):
    found = of(look(), "warning")["connections"]

    assert "all processes may open" in found.seen and "for isolated runs" in found.seen
    assert "max_connections" in found.next


def test_connections_of_another_program_are_told_from_ours_before_the_limit_is_to_be_raised(on_postgres, postgres):
    on_postgres(OPTIONS={"application_name": "switchyard"})
    with contextlib.ExitStack() as others:
        for _ in range(90):
            others.enter_context(psycopg.connect(postgres.url, application_name="importer"))
        counted = of(look(), "warning")["connections"]
        database.connection.close()
        with pytest.raises(psycopg.OperationalError):
            for _ in range(20):
                others.enter_context(psycopg.connect(postgres.url, application_name="importer"))
        full = of(look(), "error")["refused"]

    assert ": 1 is ours, 90 are not (most of importer); all processes may open" in counted.seen
    assert "pg_stat_activity" in counted.next
    assert "(max_connections); 1 is ours, 90 are not (most of importer), counted " in full.seen
    assert full.next.startswith("As a superuser, find whose they are, and end those that should not be: psql -c")
    assert "Raise max_connections" in full.next


def test_a_query_that_waits_for_a_lock_of_postgres_is_an_error_that_names_who_holds_it(
    on_postgres, postgres, monkeypatch
):
    monkeypatch.setattr(database, "BLOCKED_S", 0)
    postgres.execute("CREATE TABLE IF NOT EXISTS wanted (id INTEGER)")
    with psycopg.connect(postgres.url) as holder:
        holder.execute("LOCK TABLE wanted IN ACCESS EXCLUSIVE MODE")
        pid = holder.info.backend_pid
        waiter = threading.Thread(target=postgres.execute, args=("SELECT * FROM wanted",))
        waiter.start()

        found = wait_for(lambda: of(look(), "error").get("locked"))
        holder.rollback()
        waiter.join(30)

    assert found.next == f'psql -c "SELECT pg_terminate_backend({pid})"'


def test_a_transaction_that_is_left_open_in_postgres_is_a_warning(on_postgres, postgres, monkeypatch):
    monkeypatch.setattr(database, "IDLE_S", 0)
    with psycopg.connect(postgres.url) as holder:
        holder.execute("SELECT 1")
        pid = holder.info.backend_pid

        found = of(look(), "warning")["idle"]

    assert f"(pid {pid})" in found.seen


def test_a_postgres_that_takes_no_writes_is_an_error(on_postgres):
    on_postgres(OPTIONS={"options": "-c default_transaction_read_only=on"})

    found = of(look(), "error")["locked"]

    assert found.seen == "the database takes no writes: default_transaction_read_only is on"
    assert "the primary" in found.next


def test_postgres_that_is_away_is_an_error_and_no_traceback(on_postgres):
    on_postgres(PORT="1")

    [found] = look()

    assert (found.code, found.severity) == ("away", "error")
    assert found.seen == "the database does not answer (connection refused, nothing listens there)"


def test_postgres_that_stands_still_is_an_error_in_time(on_postgres, postgres):
    postgres.signal(signal.SIGSTOP)
    try:
        [found] = look(2.0)
    finally:
        postgres.signal(signal.SIGCONT)
        wait_for(lambda: not any(thread.name == "call doctor database" for thread in threading.enumerate()))

    assert (found.code, found.severity) == ("hangs", "error")


def run(*arguments: str, tty: bool = False) -> tuple[int, str]:
    out = io.StringIO()
    out.isatty = lambda: tty  # type: ignore[method-assign]
    try:
        call_command("switchyard", "doctor", *arguments, stdout=out)
    except SystemExit as ended:
        return ended.code, out.getvalue()
    return 0, out.getvalue()


def findings_are(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    monkeypatch.setattr("switchyard.commands.doctor.examine", lambda: list(findings))


OK = Finding("disk", "free", "ok", "70 GB free")

SKIPPED = Finding("pools", "not_checked", "skipped", "not checked")

WARNING = Finding(
    "scheduler", "down", "warning", "no scheduler leads", "None runs", "manage.py switchyard runscheduler"
)

ERROR = Finding("broker", "away", "error", "the server does not answer", "It is down", "manage.py switchyard broker")


@pytest.mark.parametrize(
    ("findings", "code", "verdict"),
    [((OK, SKIPPED), 0, "healthy"), ((OK, WARNING), 1, "warnings"), ((WARNING, ERROR, OK), 2, "errors")],
)
def test_it_exits_as_the_worst_finding_says(findings, code, verdict, monkeypatch):
    findings_are(monkeypatch, *findings)

    exit_code, printed = run("--json")

    told = json.loads(printed)
    assert (exit_code, told["exit_code"], told["verdict"]) == (code, code, verdict)
    assert (told["version"], sum(told["counts"].values())) == (switchyard.__version__, len(findings))


def test_people_read_what_was_seen_why_and_what_is_next(monkeypatch):
    findings_are(monkeypatch, OK, ERROR, WARNING)

    _, printed = run()

    assert printed.splitlines() == [
        f"Switchyard {switchyard.__version__}",
        "",
        "disk",
        "  ok       70 GB free",
        "",
        "broker",
        "  error    the server does not answer",
        "           why: It is down",
        "           next: manage.py switchyard broker",
        "",
        "scheduler",
        "  warning  no scheduler leads",
        "           why: None runs",
        "           next: manage.py switchyard runscheduler",
        "",
        "1 error and 1 warning; begin with: the server does not answer",
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (WARNING, Finding("broker", "slow", "warning", "in its slow log within the last hour: 7 of our commands")),
        (Finding("broker", "hangs", "error", "the broker has not answered after 4 s"), WARNING),
        (WARNING, Finding("actors", "failed_before", "warning", "5 jobs of report failed")),
        (Finding("configuration", "E9", "error", "hosts: is *"), Finding("broker", "no_limit", "warning", "no limit")),
    ],
)
def test_it_begins_with_the_headline_of_the_overview(first, second, monkeypatch):
    findings_are(monkeypatch, OK, second, first)

    last = run()[1].splitlines()[-1]
    assert "; begin with: " in last and last.endswith(first.seen)


def test_what_a_message_says_drives_no_terminal(monkeypatch):
    evil = "an id \x1b[2J\n  ok       nothing"
    findings_are(monkeypatch, Finding("queues", "crashing", "warning", evil, evil, evil))

    _, printed = run()

    assert "\x1b" not in printed
    assert len(printed.splitlines()) == 8


def test_a_yard_without_pools_is_told_of_each_group(facilities, configure):
    configure(DEBUG=True)

    code, printed = run("--json")

    told = json.loads(printed)
    assert code == 1, printed
    assert list(dict.fromkeys(found["group"] for found in told["findings"])) == [
        "configuration", "disk", "broker", "pools", "queues", "scheduler", "history", "batches", "database",
        "outbox", "dead letters", "alerts",
    ]  # fmt: skip
    assert set(told["findings"][0]) == {"group", "code", "severity", "seen", "cause", "next", "subject"}
    assert {found["code"] for found in told["findings"] if found["severity"] == "warning"} - {"slow"} == {"down"}


def test_a_broker_that_stands_still_holds_up_no_other_group(facilities, own_server):
    own_server.stop()

    code, printed = run("--json")

    by_group = {found["group"]: found["severity"] for found in json.loads(printed)["findings"]}
    assert (code, by_group["broker"], by_group["pools"], by_group["database"]) == (2, "error", "skipped", "ok")


def test_checks_that_all_hang_end_in_ten_seconds(monkeypatch):
    over = time.monotonic() + 60

    def hang() -> Any:
        while time.monotonic() < over:
            time.sleep(0.05)
        return ()

    for module in ("configuration", "disk", "database"):
        monkeypatch.setattr(getattr(examine, module), "look", hang)
    monkeypatch.setattr(examine, "look_at_servers", hang)
    monkeypatch.setattr(examine, "DEADLINE_S", 0.5)
    monkeypatch.setattr(examine, "UNANSWERED_S", 1.0)

    findings = examine.examine()
    over = 0.0

    assert worst(findings) == "error"


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    def broken() -> Any:
        raise RuntimeError("of its own")

    monkeypatch.setattr(examine.disk, "look", broken)

    assert "RuntimeError: of its own" in next(found.seen for found in examine.examine() if found.code == "broken")


@pytest.mark.parametrize("name", SERVER_NAMES)
def test_a_user_that_may_not_look_is_a_warning_with_the_user_that_may(name, tmp_path, configure):
    server = GuardedServer(
        tmp_path / "server", server_binary(name), re.sub(r"user (\S+) off", r"user \1 on >\1", acl.render())
    )

    def refused(role: str) -> list[tuple[str, str]]:
        configure(broker_url=server.url(f"switchyard-{role}"))
        found = json.loads(run("--json")[1])["findings"]
        assert not [one for one in found if one["code"] in ("away", "broken", "not_checked")]
        return [(one["group"], one["severity"]) for one in found if one["code"] == "not_permitted"]

    try:
        assert refused("worker") == [("queues", "warning")]
        assert (refused("scheduler"), refused("room")) == ([], [])
    finally:
        server.close()
