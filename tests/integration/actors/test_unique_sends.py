"""Sends that met a held unique key are counted, by actor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from django.test import Client
from django.urls import reverse

from switchyard.broker.interface import Facilities

pytestmark = pytest.mark.django_db


@pytest.fixture
def tally(facilities: Facilities) -> Iterator[Any]:
    broker = dramatiq.get_broker()

    @dramatiq.actor(actor_name="tally", queue_name="billing", unique_key=lambda month: f"tally {month}")
    def tally(month: str) -> None:
        """Tally a month."""

    yield tally
    del broker.actors["tally"]


def test_the_actors_page_and_a_metric_count_them(tally: Any, facilities: Facilities, admin_client: Client) -> None:
    for month in ("2026-10", "2026-10", "2026-11"):
        tally.send(month)
    before = facilities.transport.stats("billing").yields
    dramatiq.get_broker().enqueue_many([tally.message("2026-11"), tally.message("2026-12"), tally.message("2026-12")])  # type: ignore[attr-defined]

    page = admin_client.get(reverse("switchyard-actor", args=["tally"])).content.decode()
    metrics = admin_client.get("/metrics").content.decode()

    assert (before, facilities.transport.stats("billing").yields) == ({"tally": 1}, {"tally": 3})
    assert "3 sends enqueued nothing" in page
    assert 'switchyard_unique_yields_total{actor="tally",queue="billing"} 3.0' in metrics


def test_a_message_that_is_sent_twice_is_none_of_them(tally: Any, facilities: Facilities) -> None:
    message = tally.message("2026-10")
    for _ in range(2):
        dramatiq.get_broker().enqueue(message)

    assert facilities.transport.stats("billing").yields == {}
