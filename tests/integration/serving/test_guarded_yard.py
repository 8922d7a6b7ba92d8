"""Every process with the user of its own role, on both servers: all work is done, and the server refuses nothing."""

import pytest

from switchyard.broker.errors import BrokerRefused
from switchyard.broker.interface import facilities
from tests.chaos.server import server_binary
from tests.integration.project.url_table import ROUTES, Row
from tests.integration.serving.guarded_yard import Browser, GuardedYard
from tests.waiting import wait_for

# Server, and role that runs the history writer.
YARDS = (("valkey-server", "scheduler"), ("redis-server", "worker"))
SCHEDULE = "sync_rates"
PAGES = ("admin/operations/", "admin/switchyard_", "api/v1/jobs", "api/v1/queues", "metrics", "readyz")
IN_AN_HOUR_MS = 3_600_000
# A tick of this schedule fell due before the scheduler started, so it sends one at once.
PASSED_TICK = """
INSERT INTO switchyard_schedules_schedulestate (actor, spec, since, last_job_id, paused_by, paused_reason, missed)
VALUES (?, '*/5 * * * *', datetime('now', '-20 minutes'), '', '', '', 0)
"""
A_ROW = """
INSERT INTO switchyard_schedules_storedschedule
    (name, actor, args, kwargs, cron, time_zone, overlap, catch_up, created_at, changed_at, changed_by)
VALUES ('stored', 'send_mail', '[1]', '{}', '0 2 * * *', 'UTC', 'allow', 'once', datetime('now'), datetime('now'), '')
"""
EVERY_TASK = """
from switchyard.operations.alerting import FindingAlerts
from switchyard.schedules.runner import maintenance_tasks
for task in maintenance_tasks():
    task.run()
FindingAlerts().check()
"""
EVERY_COMMAND = f"""
from django.core.management import call_command
for command in (
    "check --deploy", "broker", "queues", "queues status default",
    "queues pause urgent --reason x", "queues resume urgent", "workers", "jobs list", "history list",
    "deadletters list", "alerts list", "schedules list", "schedules show {SCHEDULE}", "schedules run {SCHEDULE}",
    "actors list", "actors show send_mail", "actors send send_mail --args [1]", "bulk list",
    "deadletters requeue --group GROUP", "jobs cancel --filter actor=of_a_newer_release --reason x", "doctor",
):
    try:
        call_command(*(["switchyard"] * (command[:5] != "check")), *command.split())
    except SystemExit:
        pass  # the code of what it found
"""


@pytest.fixture
def yard(server, tmp_path):
    yard = GuardedYard(tmp_path, server_binary(server))
    yield yard
    yard.close()


@pytest.fixture
def browser(yard):
    yard.web.start()
    yield Browser(yard.web)
    yard.web.stop()


def sample(yard: GuardedYard, job: str) -> dict[str, str]:
    """Return what the paths of the pages name; "0" where there is none."""
    [(letter, fingerprint), *_] = yard.rows("SELECT id, fingerprint FROM switchyard_dead_letters_deadletter")
    [(alert,), *_] = yard.rows("SELECT id FROM switchyard_alerts_alert")
    pools = facilities(yard.reader).pools.read_all()
    member = next(report for report in pools if report.pool == "hooks")
    return {
        "job": job, "letter": letter, "fingerprint": fingerprint, "alert": alert, "queue": "default",
        "schedule": SCHEDULE, "stored": "stored", "silence": "0", "token": "1", "bulk": "1", "member": member.member,
        "worker": f"{member.member}@{member.started_at}", "quieted": f"{member.member}@{member.started_at}",
    }  # fmt: skip


def rows() -> list[Row]:
    """Return the requests of the platform's pages, those that only read first."""
    found = [row for route, rows in ROUTES.items() if route.startswith(PAGES) for row in rows]
    return sorted(found, key=lambda row: row.method != "GET")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("server", "writes_history"), YARDS)
def test_no_process_needs_more_than_its_roles_rights(yard, browser, writes_history):
    yard.rows(PASSED_TICK, SCHEDULE)
    yard.rows(A_ROW)
    yard.start("worker", "runpools", "--no-history")
    yard.start("scheduler", "runscheduler")
    yard.start(writes_history, "runhistory")
    wait_for(lambda: "pools: all ready" in yard.log("runpools").read_text(), 240, what="pools ready")

    done = yard.send("send_mail", "default", 1)
    dead = [yard.send("vat_report", "default", 1) for _ in range(3)]
    retried = yard.send("deliver_webhook", "hooks", "http://127.0.0.1:9/")
    limited = [yard.send("welcome", "default", 1) for _ in range(12)]
    later = yard.send("send_mail", "default", 1, delay_ms=IN_AN_HOUR_MS)
    yard.send("of_a_newer_release", "default")
    once = {yard.send("export_invoices", "default", 500, unique_key="one") for _ in range(2)}

    def is_written(job: str) -> bool:
        return bool(yard.rows("SELECT 1 FROM switchyard_history_jobrow WHERE job_id = ?", job))

    wait_for(lambda: all(is_written(job) for job in (done, *dead, retried)), 120, what="history")
    wait_for(lambda: yard.rows("SELECT 1 FROM switchyard_schedules_schedulestate WHERE last_job_id != ''"), 60)
    wait_for(lambda: yard.rows("SELECT 1 FROM switchyard_alerts_alert WHERE kind = 'dead_letter'"), 60)
    [(group,), *_] = yard.rows("SELECT fingerprint FROM switchyard_dead_letters_deadletter WHERE actor = 'vat_report'")
    yard.run("scheduler", "shell", "-v0", "-c", EVERY_TASK)
    yard.run("room", "shell", "-v0", "-c", EVERY_COMMAND.replace("GROUP", group))
    names = sample(yard, later)
    statuses = {}
    for row in rows():
        path = row.path.format_map(names)
        data = {name: text.format_map(names) for name, text in row.data.items()}
        statuses[f"{row.method} {path}"] = browser.request(row.method, path, data)

    assert yard.refused() == []
    assert {path: status for path, status in statuses.items() if status >= 500} == {}
    assert [path for path, status in statuses.items() if status == 302 and "login" in path] == []
    assert len(once) == 1
    assert {yard.state(job) for job in limited} >= {"succeeded", "scheduled"}
    assert [name for name in ("runpools", "runscheduler", "runhistory") if "NOPERM" in yard.log(name).read_text()] == []
    assert "NOPERM" not in yard.web.log.read_text()
    with pytest.raises(BrokerRefused):  # the list would have shown it
        facilities(yard.sender).records.calls.command("FLUSHALL")
    assert yard.refused() == [("switchyard-producer", "flushall", "toplevel")]
