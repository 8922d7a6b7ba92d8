"""Every list of the room is a file as well, with the filter and the rights of its page; notes on alerts and queues."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from switchyard.alerts.models import Alert
from switchyard.audit.models import AuditEntry
from switchyard.broker.interface import Facilities
from switchyard.jobs.services import submit
from tests.factories.brokers import broker_without_server
from tests.integration.bulk.test_letters import bury
from tests.integration.jobs import probe_actors
from tests.integration.jobs.history_rows import job_row
from tests.integration.jobs.passport.test_page import staff

pytestmark = pytest.mark.django_db(transaction=True)
LISTS = {
    "switchyard-jobs": "jobs", "switchyard-letters": "dead-letters", "switchyard-alerts": "alerts",
    "switchyard-audit": "audit", "switchyard-bulk-acts": "bulk-acts", "switchyard-queues": "queues",
    "switchyard-actors": "actors", "switchyard-schedules": "schedules",
}  # fmt: skip


def read(client: Client, page: str, **query: str) -> list[dict[str, Any]]:
    answer = client.get(reverse(page), query | {"export": "json"})
    assert answer.status_code == 200
    return json.loads(answer.content)[LISTS[page]]


def an_alert() -> Alert:
    now = timezone.now()
    return Alert.objects.create(
        fingerprint="f1", kind="finding", title="Late", severity="warning", sample="late", count=2, first_at=now,
        last_at=now,
    )  # fmt: skip


@pytest.mark.parametrize("page", LISTS)
def test_every_list_links_its_files(page: str, admin_client: Client, facilities: Facilities) -> None:
    shown = admin_client.get(reverse(page)).content.decode()
    table = admin_client.get(reverse(page), {"export": "csv"})

    assert "?export=csv" in shown and "?export=json" in shown
    assert table.status_code == 200 and table["Content-Type"].startswith("text/csv")
    assert isinstance(read(admin_client, page), list)


def test_a_file_has_what_matches_the_filter_of_its_page(admin_client: Client, facilities: Facilities) -> None:
    job_row(actor="probe_write")
    waiting = submit(probe_actors.add, kwargs={"a": 1, "b": 2})
    bury(2, actor="probe_fail")
    bury(1, actor="probe_add", fingerprint="other")
    an_alert()

    jobs = read(admin_client, "switchyard-jobs", actor="probe_add")
    assert [(job["id"], job["arguments"]) for job in jobs] == [(waiting, {"a": 1, "b": 2})]
    assert len(read(admin_client, "switchyard-jobs")) == 2
    assert {each["actor"] for each in read(admin_client, "switchyard-letters", actor="probe_fail")} == {"probe_fail"}
    assert len(read(admin_client, "switchyard-letters")) == 3
    assert [each["title"] for each in read(admin_client, "switchyard-alerts", state="open")] == ["Late"]
    assert read(admin_client, "switchyard-alerts", state="resolved") == []
    assert {each["queue"] for each in read(admin_client, "switchyard-queues")} >= {"default", "urgent"}


def test_arguments_stay_hidden_without_the_right(facilities: Facilities) -> None:
    submit(probe_actors.add, kwargs={"a": 1, "b": 2})

    [job] = read(staff("view_job"), "switchyard-jobs")

    assert job["arguments"] is None


def test_without_a_broker_there_is_no_half_of_a_list(admin_client: Client) -> None:
    with broker_without_server():
        answer = admin_client.get(reverse("switchyard-jobs"), {"export": "csv"})

    assert answer.status_code == 503 and "export: " in answer.content.decode()


def test_an_unusable_filter_is_no_file(admin_client: Client) -> None:
    answer = admin_client.get(reverse("switchyard-jobs"), {"export": "csv", "since": "soon"})

    assert answer.status_code == 400 and "since" in answer.content.decode()


@pytest.mark.parametrize("kind", ["alert", "queue"])
def test_a_note_is_on_its_page_and_in_the_audit_log(kind: str, admin_client: Client, facilities: Facilities) -> None:
    target = str(an_alert().pk) if kind == "alert" else "default"
    page = reverse(f"switchyard-{kind}", args=[target])
    address = reverse(f"switchyard-{kind}-note", args=[target])

    empty = admin_client.post(address, {"text": " "}, follow=True).content.decode()
    admin_client.post(address, {"text": "waits for <b>Stripe</b>, see you at 6"})
    shown = admin_client.get(page).content.decode()
    log = csv.DictReader(io.StringIO(admin_client.get(reverse("switchyard-audit"), {"export": "csv"}).content.decode()))

    assert "note: it is empty" in empty
    assert address in shown and "waits for &lt;b&gt;Stripe&lt;/b&gt;, see you at 6" in shown
    assert AuditEntry.objects.get(act=f"{kind}.note", outcome="done").target == target
    assert [row["reason"] for row in log if row["act"] == f"{kind}.note"] == ["waits for <b>Stripe</b>, see you at 6"]


def test_commands_write_the_same_notes(facilities: Facilities, capsys: pytest.CaptureFixture[str]) -> None:
    alert = an_alert()

    call_command("switchyard", "alerts", "note", str(alert.pk), "ticket 88")
    call_command("switchyard", "queues", "note", "default", "paused for the import", "--json")
    call_command("switchyard", "alerts", "show", str(alert.pk))

    assert "ticket 88" in capsys.readouterr().out
    assert {*AuditEntry.objects.values_list("act", "target", "reason")} == {
        ("alert.note", str(alert.pk), "ticket 88"),
        ("queue.note", "default", "paused for the import"),
    }
    with pytest.raises(CommandError, match="note: it is empty"):
        call_command("switchyard", "queues", "note", "default", " ")
