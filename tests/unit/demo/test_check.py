"""The check itself: right outcomes are as expected, and each wrong one is noticed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from demo.check import expectations
from demo.check.evidence import Evidence, Seen
from demo.check.expectations import EXPECTATIONS
from demo.check.run import table
from demo.client import Client
from demo.sample.journal import Answers, Journal, SentJob
from demo.state import StateFolder
from demo.text import line_console

RECEIVER = "http://127.0.0.1:9"
TABLES = """
create table shop_payment (external_id text);
create table shop_invoice (id integer);
create table switchyard_dead_letters_deadletter (message_id text);
create table webhooks_endpoint (url text, active integer);
"""


class World:
    """The traces that sample work leaves, put there by hand."""

    def __init__(self, folder: Path) -> None:
        self.state = StateFolder(folder)
        self.state.make()
        (self.state.mailbox / "new").mkdir()
        self.journal = Journal()
        self.answers = Answers(payment_id="pay")
        self.files: dict[str, bytes] = {}
        self.database = sqlite3.connect(self.state.database)
        self.database.executescript(TABLES)

    def job(self, kind: str, job_id: str, state: str = "succeeded", **body: Any) -> None:
        self.journal.add(SentJob("app", kind, kind, job_id))
        self.journal.update(job_id, {"state": state, "attempts": 1, **body})

    def mail(self, to: str, message_id: str, subject: str = "Hello") -> None:
        folder = self.state.mailbox / "new"
        text = f"X-Envelope-To: {to}\r\nSubject: {subject}\r\nMessage-ID: \r\n {message_id}\r\n\r\nHello\r\n"
        (folder / f"{len(list(folder.iterdir())):03d}.eml").write_text(text)

    def arrive(self, path: str, status: int, webhook_id: str = "msg_1", signed: bool = True) -> None:
        with self.state.deliveries.open("a") as log:
            log.write(json.dumps({"id": webhook_id, "path": path, "status": status, "signature_ok": signed}) + "\n")

    def row(self, statement: str, *values: Any) -> None:
        with self.database:
            self.database.execute(statement, values)

    def look(self) -> Evidence:
        client = Client(RECEIVER, "token")
        return Evidence(self.journal, self.answers, client, self.state, RECEIVER, self.files)


@pytest.fixture
def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    yield made
    made.database.close()


def test_every_reset_must_have_been_mailed_exactly_once(world: World) -> None:
    for number in range(5):
        world.job("password_reset", f"job-{number}")
        world.mail("ada@example.com", f"<job-{number}.password_reset@switchyard.example>")
    assert expectations.resets(world.look()) == Seen("5 succeeded, 5 mails", as_expected=True)

    world.mail("ada@example.com", "<job-0.password_reset@switchyard.example>")

    assert not expectations.resets(world.look()).as_expected


def test_rate_limit_must_hold_exactly_what_is_over_it(world: World) -> None:
    for number in range(10):
        world.job("welcome", f"job-{number}")
        world.mail("ada@example.com", f"<job-{number}.welcome@switchyard.example>")
    for number in (10, 11):
        world.job("welcome", f"job-{number}", "scheduled", reason="rate_limit")
    assert expectations.welcomes(world.look()).as_expected

    world.job("welcome", "job-12")

    assert not expectations.welcomes(world.look()).as_expected


def test_delayed_job_must_not_start_early(world: World) -> None:
    times = {"enqueued_at": "2026-11-20T08:00:00.000000Z", "started_at": "2026-11-20T08:00:19.000000Z"}
    world.job("later", "job", **times)
    world.mail("later@readers.example", "<job.newsletter@switchyard.example>")
    assert not expectations.scheduled(world.look()).as_expected

    world.journal.update("job", {"state": "succeeded", **times, "started_at": "2026-11-20T08:00:20.100000Z"})

    assert expectations.scheduled(world.look()).as_expected


def test_cancelled_job_must_have_sent_nothing(world: World) -> None:
    world.job("cancelled", "job", "cancelled")
    assert expectations.cancelled(world.look()).as_expected

    world.mail("never@readers.example", "<job.newsletter@switchyard.example>")

    assert not expectations.cancelled(world.look()).as_expected


def test_result_must_be_the_kind_of_file_that_was_asked_for(world: World) -> None:
    world.job("statement", "job")
    world.files["job"] = b"<html>an error page</html>"
    assert not expectations.statements(world.look()).as_expected

    world.files["job"] = b"%PDF-1.7 ..."

    assert expectations.statements(world.look()) == Seen("1 succeeded, 1 PDF", as_expected=True)


def test_export_must_have_a_line_for_every_invoice_and_a_head(world: World) -> None:
    world.job("export_csv", "job")
    world.row("insert into shop_invoice values (1), (2)")
    world.files["job"] = b"number\r\n1\r\n"
    assert not expectations.export_csv(world.look()).as_expected

    world.files["job"] = b"number\r\n1\r\n2\r\n"

    assert expectations.export_csv(world.look()).as_expected


def test_payment_that_was_sent_twice_must_be_booked_once(world: World) -> None:
    world.answers.payment = [202, 202]
    world.row("insert into shop_payment values ('pay')")
    assert expectations.payment(world.look()) == Seen("202, 202, booked once", as_expected=True)

    world.row("insert into shop_payment values ('pay')")

    assert not expectations.payment(world.look()).as_expected


def test_forged_payment_must_be_refused_and_not_booked(world: World) -> None:
    world.answers.forged = 401
    assert expectations.forged(world.look()).as_expected

    world.row("insert into shop_payment values ('pay_forged')")

    assert not expectations.forged(world.look()).as_expected


def test_healthy_endpoint_must_get_each_delivery_once_and_signed(world: World) -> None:
    world.job("webhook_healthy", "job")
    world.arrive("/healthy", 200, signed=False)
    assert not expectations.healthy(world.look()).as_expected

    world.state.deliveries.unlink()
    world.arrive("/healthy", 200)
    assert expectations.healthy(world.look()).as_expected
    world.arrive("/healthy", 200)

    assert not expectations.healthy(world.look()).as_expected


def test_flaky_endpoint_must_have_failed_first(world: World) -> None:
    world.job("webhook_flaky", "job", attempts=1)
    assert not expectations.flaky(world.look()).as_expected

    world.journal.update("job", {"state": "succeeded", "attempts": 2})
    world.arrive("/flaky", 500)

    assert expectations.flaky(world.look()).as_expected


def test_broken_endpoint_must_end_in_one_dead_letter_and_one_alert(world: World) -> None:
    world.job("webhook_broken", "job", "dead", reason="exhausted", attempts=6)
    world.row("insert into switchyard_dead_letters_deadletter values ('job')")
    for _ in range(6):
        world.arrive("/broken", 500)
    assert not expectations.broken(world.look()).as_expected

    world.mail("operations@switchyard.example", "<alert-1-0@switchyard>", "deliver_webhook gave up: DeliveryFailed")
    assert expectations.broken(world.look()).as_expected
    world.mail("operations@switchyard.example", "<alert-2-0@switchyard>", "deliver_webhook gave up: DeliveryFailed")

    assert not expectations.broken(world.look()).as_expected


def test_endpoint_that_is_gone_must_be_disabled_after_one_request(world: World) -> None:
    world.job("webhook_gone", "job", "dead", reason="permanent")
    world.arrive("/gone", 410)
    world.mail("operations@switchyard.example", "<alert-1-0@switchyard>", "deliver_webhook gave up: PermanentFailure")
    world.row("insert into webhooks_endpoint values (?, 1)", f"{RECEIVER}/gone")
    assert not expectations.gone(world.look()).as_expected

    world.row("update webhooks_endpoint set active = 0")

    assert expectations.gone(world.look()).as_expected


def test_before_anything_was_sent_nothing_but_what_needs_no_work_is_as_expected(world: World) -> None:
    assert not [expected.what for expected in EXPECTATIONS[:-1] if expected.look(world.look()).as_expected]


def test_table_shows_expected_against_seen(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    found = [Seen("as it should be", as_expected=True, seconds=1.25) for _ in EXPECTATIONS]
    found[0] = Seen("nothing sent yet", as_expected=False)

    line_console(sys.stdout).print(table(found), soft_wrap=False)

    lines = capsys.readouterr().out.splitlines()
    assert any("5 password resets" in line and "nothing sent yet" in line and "NO" in line for line in lines)
    assert any("reconciliation" in line and "1.2" in line and "ok" in line for line in lines)
