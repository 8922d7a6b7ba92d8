"""No page has a control character in its text, whatever tasks and messages say."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from django.test import Client
from django.urls import reverse

from switchyard.broker.interface import Facilities
from switchyard.broker.queue.operations import Entry
from tests.integration.jobs.history_rows import job_row
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
EVIL = "\x1b]0;evil\x07 \x9b2J"
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def shown(client: Client, address: str) -> str:
    page = client.get(address)
    assert page.status_code == 200
    text = page.content.decode()
    assert not CONTROL.search(text)
    return text


def test_a_jobs_error_is_escaped_on_its_page_and_in_lists(admin_client: Client) -> None:
    row = job_row(state="dead", error_type="ValueError", error_message=EVIL, fingerprint="f00d", owner=EVIL)

    page = shown(admin_client, reverse("switchyard-job", args=[row.job_id]))

    assert r"\x1b]0;evil\x07 \x9b2J" in page
    assert r"\x1b]0;evil" in shown(admin_client, reverse("switchyard-jobs") + "?state=dead")


@pytest.mark.django_db(transaction=True)
def test_the_name_of_a_parked_actor_is_escaped_on_the_page_of_its_queue(
    facilities: Facilities, run_worker: Callable[..., Any], admin_client: Client
) -> None:
    body = rb'{"actor":"unknown\u0000\u001b[2J","sent_at":1}'
    broker = dramatiq.get_broker()
    broker.families["default"].enqueue([Entry("parked", body)])
    with run_worker("default"):
        wait_for(lambda: facilities.transport.stats("default").parked)

    assert r"unknown\x00\x1b[2J" in shown(admin_client, reverse("switchyard-queue", args=["default"]))
    shown(admin_client, reverse("switchyard-operations"))
    assert r"unknown\x00\x1b[2J" in shown(admin_client, reverse("switchyard-jobs") + "?state=scheduled")
