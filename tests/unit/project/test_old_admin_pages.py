"""Links to admin pages from before the app labels began with "switchyard_" lead to the pages of today."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import resolve


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/admin/jobs/job/", "/admin/switchyard_jobs/job/"),
        (
            "/admin/dead_letters/deadletter/?fingerprint=beef&queue=slow",
            "/admin/switchyard_dead_letters/deadletter/?fingerprint=beef&queue=slow",
        ),
        ("/admin/alerts/alert/7/change/", "/admin/switchyard_alerts/alert/7/change/"),
        ("/admin/schedules/", "/admin/switchyard_schedules/"),
        ("/admin/api/token/", "/admin/switchyard_api/token/"),
    ],
)
def test_an_old_address_leads_to_the_page_of_today(old: str, new: str) -> None:
    answer = Client().get(old)

    assert (answer.status_code, answer["Location"]) == (302, new)
    assert resolve(new.partition("?")[0]).namespace == "admin"


def test_nothing_leads_to_another_host() -> None:
    assert Client().get("/admin/jobs///other.example/")["Location"].startswith("/admin/switchyard_jobs/")


def test_the_rooms_own_addresses_and_those_of_products_stay() -> None:
    assert resolve("/admin/operations/").url_name == "switchyard-operations"
    assert resolve("/admin/webhooks/endpoint/").url_name == "webhooks_endpoint_changelist"
