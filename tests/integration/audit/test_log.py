"""The audit log to read: its page and its files, with the same filters."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import READ_ONLY, Who, act, delete_old_rows
from tests.factories.staff import client_of

pytestmark = pytest.mark.django_db

PAGE = reverse("switchyard-audit")


@pytest.fixture
def reader() -> Client:
    """A logged-in user with the read-only role."""
    user = User.objects.create_user("r.eader", is_staff=True)
    user.groups.add(Group.objects.get(name=READ_ONLY))
    return client_of(user)


def did(name: str, who: str = "ada", via: str = "page", **more: Any) -> None:
    with act(name, who=Who(who, via), **more) as entry:
        entry.count = 1


def test_page_shows_an_act_with_a_link_to_its_target_escaped(reader: Client) -> None:
    did("schedule.run", target="nightly")
    did("job.cancel", target="0f8fad5b-d9cb-469f-a165-70867728950e", reason="<script>alert(1)</script>")

    page = reader.get(PAGE).content.decode()

    assert "&lt;script&gt;" in page and "<script>alert(1)" not in page
    assert reverse("switchyard-job", args=["0f8fad5b-d9cb-469f-a165-70867728950e"]) in page
    assert "<time datetime=" in page and "nightly" in page


def test_arguments_in_details_are_hidden_from_who_may_not_view_them(reader: Client) -> None:
    did("letter.edit", detail={"changed": {"month": {"from": "argument-1", "to": "argument-2"}}, "actor": "reconcile"})
    did("bulk.start", detail={"kind": "job.cancel", "filter": {"argument": "month=argument-3", "queue": "billing"}})
    did("actor.pause", target="export", detail={"argument": "month=argument-4"})
    did("job.edit", detail={"changes": {"month": {"from": "argument-5", "to": ""}, "(due)": {"to": "2026-11-05"}}})
    did("circuit.open", target='notify with month="argument-6"')  # as earlier releases wrote it

    poor = reader.get(PAGE).content.decode()
    User.objects.get().user_permissions.add(Permission.objects.get(codename="view_arguments"))
    full = reader.get(PAGE).content.decode()

    assert all(f"argument-{n}" in full and f"argument-{n}" not in poor for n in range(1, 7))
    assert all(word in poor for word in ("month", "billing", "reconcile", "notify", "2026-11-05"))


@pytest.mark.parametrize(
    ("query", "acts"),
    [
        ({"who": "bob"}, ["job.cancel"]),
        ({"act": "queue"}, ["queue.resume", "queue.pause"]),
        ({"act": "queue.pause"}, ["queue.pause"]),
        ({"target": "slow"}, ["queue.resume", "queue.pause"]),
        ({"via": "command"}, ["job.cancel"]),
        ({"outcome": "failed"}, ["queue.resume"]),
        ({"since": "1h"}, ["job.cancel", "queue.resume"]),
        ({"until": "1h"}, ["queue.pause"]),
    ],
)
def test_page_and_export_filter_alike(reader: Client, query: dict[str, str], acts: list[str]) -> None:
    did("queue.pause", target="slow")
    AuditEntry.objects.update(at=timezone.now() - timedelta(hours=2))
    with act("queue.resume", who=Who("ada", "page"), target="slow") as entry:
        entry.error = "BrokerUnavailable"
    did("job.cancel", who="bob", via="command", target="x")

    shown = [row["entry"].act for row in reader.get(PAGE, query).context["rows"]]
    exported = reader.get(PAGE, {**query, "export": "json"}).json()["audit"]

    assert shown == [row["act"] for row in exported] == acts


@pytest.mark.parametrize(
    "query", [{"since": "soon"}, {"act": "fly"}, {"before": "x"}, {"via": "mail"}, {"who": "a" * 300}]
)
def test_unusable_value_is_named_and_answered_with_400(reader: Client, query: dict[str, str]) -> None:
    answer = reader.get(PAGE, query)

    assert answer.status_code == 400
    assert next(iter(query)) + ": " in answer.context["wrong"]


def test_rows_are_deleted_after_a_year() -> None:
    for age_days in (0, 364, 366, 400):
        did("queue.pause", target=str(age_days))
        AuditEntry.objects.filter(target=str(age_days)).update(at=timezone.now() - timedelta(days=age_days))

    assert delete_old_rows() == 2

    assert set(AuditEntry.objects.values_list("target", flat=True)) == {"0", "364"}
