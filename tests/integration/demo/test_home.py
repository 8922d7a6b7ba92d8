"""The root of the site, which the demo announces."""

from __future__ import annotations

from django.test import Client


def test_root_of_the_site_leads_to_the_operations_room() -> None:
    answer = Client().get("/")

    assert (answer.status_code, answer["Location"]) == (302, "/admin/operations/")
