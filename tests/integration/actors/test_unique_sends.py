"""Sends that met a held unique key are counted, by actor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from switchyard.broker.interface import Facilities
from switchyard.jobs.services import submit
from tests.factories.callers import Caller

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


def test_both_jobs_tell_of_the_conflict(tally: Any, facilities: Facilities, admin_client: Client) -> None:
    broker, messages = dramatiq.get_broker(), [tally.message("2026-10") for _ in range(7)]
    for message in messages:
        broker.enqueue(message)
    broker.enqueue(messages[-1])  # a repeated call is told once
    kept, *others = [message.message_id for message in messages]

    page, missing = (admin_client.get(reverse("switchyard-job", args=[id_])) for id_ in (kept, others[-1]))
    shown = admin_client.get(reverse("switchyard-job", args=[kept]), {"format": "json"}).json()
    with pytest.raises(CommandError, match=f"nothing was enqueued: job {kept} held its unique key"):
        call_command("switchyard", "jobs", "show", others[-1])

    assert shown["stands_for"] == others[:-6:-1]
    assert "and was kept instead" in page.content.decode() and others[-1] in page.content.decode()
    assert missing.status_code == 404 and kept in missing.content.decode()


def test_the_api_tells_it_to_the_owner_of_the_job_that_was_kept(
    tally: Any, facilities: Facilities, transactional_db: None
) -> None:
    caller, other = Caller("ada"), Caller("bob")
    kept = submit(tally, "2026-10", owner=caller.token.owner_key)
    gone = tally.message("2026-10")
    dramatiq.get_broker().enqueue(gone)

    assert caller.get(f"/jobs/{kept}").json()["stands_for"] == [gone.message_id]
    told, hidden = (each.get(f"/jobs/{gone.message_id}") for each in (caller, other))
    assert (told.status_code, hidden.status_code) == (404, 404)
    assert kept in told.json()["detail"] and kept not in hidden.json()["detail"]


def test_what_stands_for_others_is_bounded_and_expires(tally: Any, facilities: Facilities) -> None:
    broker: Any = dramatiq.get_broker()
    key = broker.families["billing"].keys.stand_ins

    broker.enqueue_many([tally.message("2026-10") for _ in range(2_100)])

    assert broker.client.hlen(key) == 2_000
    assert 0 < broker.client.pttl(key) <= 3_600_000
