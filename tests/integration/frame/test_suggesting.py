"""Suggestions of the search: what is offered, in which order, to whom, and what it costs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import dramatiq
import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from switchyard.console.links import actor_url, jobs_url, queue_url, schedule_url
from switchyard.frame import suggesting
from switchyard.history.filters import TAG, searched_names
from switchyard.history.models import SearchValue
from switchyard.schedules.registry import schedules
from tests.factories.brokers import broker_without_server
from tests.integration.jobs.history_rows import job_row

pytestmark = pytest.mark.django_db
SUGGESTIONS = reverse("switchyard-suggestions")


def offered(client: Client, asked: str) -> list[dict[str, str]]:
    answer = client.get(SUGGESTIONS, {"q": asked})
    assert answer.status_code == 200
    return list(answer.json()["suggestions"])


def addresses(client: Client, asked: str) -> list[str]:
    return [one["address"] for one in offered(client, asked)]


def test_a_part_of_a_name_offers_what_begins_with_it_first(admin_client: Client) -> None:
    found = offered(admin_client, "BILL")

    assert found[0] == {"kind": "queue", "name": "billing", "address": queue_url("billing")}
    assert {"kind": "pool", "name": "billing"}.items() <= found[1].items()
    assert offered(admin_client, "report")[-1]["name"].startswith(("generate_", "purge_", "send_"))


@pytest.mark.parametrize(
    ("asked", "address"),
    [
        ("generate_rep", actor_url("generate_report")),
        (schedules()[0].name[:9], schedule_url(schedules()[0].name)),
        ("sched", reverse("switchyard-schedules")),
        ("retryin", jobs_url(state="retrying")),
        ("customer_id=42", jobs_url(argument="customer_id=42")),
    ],
)
def test_each_kind_is_offered(asked: str, address: str, admin_client: Client) -> None:
    assert address in addresses(admin_client, asked)


def test_nothing_is_offered_that_the_user_may_not_see(watcher: Client) -> None:
    assert {one["kind"] for one in offered(watcher, "re")} <= {"page", "queue", "actor", "pool"}
    assert addresses(watcher, str(uuid.uuid4())) == addresses(watcher, "retrying") == []
    assert addresses(watcher, "customer_id=42") == []


def test_owners_tags_and_arguments_are_offered_that_begin_with_the_text(admin_client: Client) -> None:
    for number in range(6):
        job_row(owner=f"user:{number % 5}")
    for name, value in [("customer_id", "4711"), ("customer_id", "4712"), ("customer_id", "5"), (TAG, "47-november")]:
        SearchValue.objects.create(name=name, value=value, job_id=f"{name}{value}", finished_at=1)
    SearchValue.objects.create(name="unlisted", value="4713", job_id="x", finished_at=1)

    assert [one["name"] for one in offered(admin_client, "user:")] == ["user:0", "user:1", "user:2"]
    assert offered(admin_client, "user:4") == [{"kind": "owner", "name": "user:4", "address": jobs_url(owner="user:4")}]
    assert [one["name"] for one in offered(admin_client, "47")] == [
        "47-november", "customer_id=4711", "customer_id=4712",
    ]  # fmt: skip
    assert addresses(admin_client, "customer_id=47")[1:] == [
        jobs_url(argument="customer_id=4711"), jobs_url(argument="customer_id=4712"),
    ]  # fmt: skip


def test_values_of_arguments_are_offered_only_to_who_may_view_them(watcher: Client) -> None:
    SearchValue.objects.create(name="customer_id", value="4711", job_id="x", finished_at=1)
    SearchValue.objects.create(name=TAG, value="4711-tag", job_id="x", finished_at=1)
    job_row(owner="4711-owner")
    user = User.objects.get(pk=watcher.session["_auth_user_id"])
    before = addresses(watcher, "4711")
    user.user_permissions.add(Permission.objects.get(codename="view_job"))

    assert before == []
    assert [one["kind"] for one in offered(watcher, "4711")] == ["owner", "tag"]


def test_a_text_costs_few_queries_and_without_a_database_names_are_offered(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {name for actor in dramatiq.get_broker().actors for name in searched_names(actor)}
    with broker_without_server(), CaptureQueriesContext(connection) as asked:
        assert addresses(admin_client, "billing")[0] == queue_url("billing")
    monkeypatch.setattr(suggesting, "owners", _broken)

    # The session and its user, the stored schedules, then one step along each index.
    assert len(asked) <= 2 + 1 + 2 + min(len(names), suggesting.MOST_NAMES)
    assert addresses(admin_client, "billing")[0] == queue_url("billing")


def _broken(text: str) -> Iterator[suggesting.Suggestion]:
    raise OperationalError("the database is locked")
