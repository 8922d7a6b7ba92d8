"""Suggestions of the search: what is offered, in which order, to whom, and that no server is asked."""

from __future__ import annotations

import uuid

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from apps.platform.console.links import actor_url, job_url, jobs_url, queue_url, schedule_url
from apps.platform.schedules.registry import schedules
from tests.factories.brokers import broker_without_server

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


def test_an_id_offers_its_job_alone(admin_client: Client) -> None:
    job_id = str(uuid.uuid4())

    assert addresses(admin_client, job_id.upper()) == [job_url(job_id)]


@pytest.mark.parametrize("asked", ["", "b", "nothing has this name", "unknown_argument=1"])
def test_a_text_that_means_nothing_yet_offers_nothing(asked: str, admin_client: Client) -> None:
    assert offered(admin_client, asked) == []


def test_few_are_offered(admin_client: Client) -> None:
    assert len(offered(admin_client, "re")) == 8


def test_nothing_is_offered_that_the_user_may_not_see(watcher: Client) -> None:
    assert {one["kind"] for one in offered(watcher, "re")} <= {"page", "queue", "actor", "pool"}
    assert addresses(watcher, str(uuid.uuid4())) == addresses(watcher, "retrying") == []
    assert addresses(watcher, "customer_id=42") == []


def test_no_broker_is_asked_and_the_database_only_for_the_user(
    admin_client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with broker_without_server(), django_assert_num_queries(2):  # the session and its user
        assert addresses(admin_client, "billing")[0] == queue_url("billing")
