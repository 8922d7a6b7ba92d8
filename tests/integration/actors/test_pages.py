"""The list of actors, the page of one, and the form that sends it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from apps.platform.audit.models import AuditEntry
from apps.platform.dead_letters.models import DeadLetter
from broker.interface import Facilities
from tests.factories.brokers import broker_without_server

pytestmark = pytest.mark.django_db

LIST = reverse("switchyard-actors")


def charge(customer_id: int, amount: float = 9.5, *, pin: str = "0000") -> None:
    """Charge a customer.

    Safe to repeat.
    """


@pytest.fixture
def actor(facilities: Facilities) -> Iterator[Any]:
    """An actor of this project's own broker, with a redacted argument."""
    broker = dramatiq.get_broker()
    yield dramatiq.actor(charge, broker=broker, queue_name="billing", redact=("pin",), rate_limit="10/m")
    del broker.actors["charge"]


def page_of(name: str) -> str:
    return reverse("switchyard-actor", args=[name])


def send_to(name: str) -> str:
    return reverse("switchyard-actor-send", args=[name])


def client_with(*rights: str, enforce_csrf_checks: bool = False) -> Client:
    user = User.objects.create_user(f"with-{uuid.uuid4().hex[:6]}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client = Client(enforce_csrf_checks=enforce_csrf_checks)
    client.force_login(user)
    return client


@pytest.fixture
def sender(admin_user: User) -> Client:
    """A logged-in administrator, who has every right."""
    client = Client()
    client.force_login(admin_user)
    return client


def test_the_list_names_queue_pool_options_and_place(actor: Any) -> None:
    page = client_with("view_operations").get(LIST).content.decode()

    assert page_of("charge") in page and "Charge a customer." in page
    assert "rate_limit=&#x27;10/m&#x27;" in page and "redact=(&#x27;pin&#x27;,)" in page
    assert "tests.integration.actors.test_pages" in page and "test_pages.py:" in page
    assert "time_limit=600000" not in page  # the queue's


def test_the_page_shows_code_options_with_their_rules_and_no_secret(actor: Any) -> None:
    page = client_with("view_operations").get(page_of("charge")).content.decode()

    assert "charge(customer_id: int, amount: float = 9.5, *, pin: str = [redacted]) -&gt; None" in page
    assert "Safe to repeat." in page and "0000" not in page
    assert "units are s, m, h, d" in page
    assert "none has run here" in page and "this actor has no open dead letter" not in page
    assert "switchyard_dead_letters.view_deadletter" in page
    assert "<form" not in page.partition('id="failures"')[2].partition("</main>")[0] or send_to("charge") not in page


def test_pages_need_the_right_and_an_actor(actor: Any) -> None:
    nobody, watcher = client_with(), client_with("view_operations")

    assert [nobody.get(address).status_code for address in (LIST, page_of("charge"))] == [403, 403]
    assert watcher.get(page_of("chagre")).status_code == 404
    assert watcher.post(page_of("charge")).status_code == 405
    assert Client().get(LIST).status_code == 302


def test_failures_link_their_letters(actor: Any) -> None:
    when = "2026-11-21T10:00Z"
    for number in range(3):
        DeadLetter.objects.create(
            message_id=str(uuid.uuid4()), queue="billing", actor="charge" if number else "other", reason="exhausted",
            exception="KeyError", error="'vat_rate'", traceback="", attempts=1, payload={}, fingerprint="abc",
            enqueued_at=when, died_at=when, duration_ms=1, state_at=when,
        )  # fmt: skip

    page = client_with("view_operations", "view_deadletter").get(page_of("charge")).content.decode()

    assert "?fingerprint=abc" in page and "KeyError" in page
    assert '<td data-label="Open letters" class="sy-num">2</td>' in page


def test_the_form_sends_one_job_and_links_it(sender: Client, actor: Any, facilities: Facilities) -> None:
    page = sender.get(page_of("charge")).content.decode()
    job_id = page.partition('name="job_id" value="')[2].partition('"')[0]
    fields = {"argument-customer_id": "7", "argument-amount": "9.5", "argument-pin": '"1234"', "job_id": job_id}

    first = sender.post(send_to("charge"), fields)
    again = sender.post(send_to("charge"), fields)

    assert first.status_code == again.status_code == 302
    assert first["Location"] == again["Location"] and job_id in first["Location"]
    assert facilities.transport.stats("billing").live.waiting == 1
    assert facilities.transport.find_message("billing", job_id).kwargs == {"customer_id": 7, "pin": "1234"}
    entry = AuditEntry.objects.last()
    assert (entry.act, entry.target, entry.outcome, entry.count) == ("job.send", "charge", "done", 1)
    assert entry.detail["job"] == job_id and "1234" not in str(entry.detail)


def test_a_wrong_field_has_its_error_beside_it_and_no_secret_returns(
    sender: Client, actor: Any, facilities: Facilities
) -> None:
    fields = {"argument-customer_id": '"seven"', "argument-pin": '"1234"', "delay_s": "-1"}

    answer = sender.post(send_to("charge"), fields)

    page = answer.content.decode()
    assert answer.status_code == 422
    assert 'id="id_argument-customer_id_error" role="alert">expects int; this is a text' in page
    assert "greater than or equal to 0" in page
    assert "&quot;seven&quot;" in page and "1234" not in page
    assert facilities.transport.stats("billing").live.waiting == 0 and not AuditEntry.objects.exists()


def test_a_delay_schedules_the_job(sender: Client, actor: Any, facilities: Facilities) -> None:
    sender.post(send_to("charge"), {"argument-customer_id": "7", "delay_s": "60"})

    assert facilities.transport.stats("billing").live.scheduled == 1


def test_sending_needs_the_right_a_post_and_a_token(actor: Any, facilities: Facilities, admin_user: User) -> None:
    watcher, forged = client_with("view_operations"), Client(enforce_csrf_checks=True)
    forged.force_login(admin_user)
    fields = {"argument-customer_id": "7"}

    assert watcher.post(send_to("charge"), fields).status_code == 403
    assert forged.post(send_to("charge"), fields).status_code == 403
    assert watcher.get(send_to("charge")).status_code == 405
    assert facilities.transport.stats("billing").live.waiting == 0


def test_a_broker_that_is_away_is_said_and_audited(sender: Client, actor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with broker_without_server():
        monkeypatch.setattr(actor, "broker", dramatiq.get_broker())

        page = sender.get(page_of("charge"))
        answer = sender.post(send_to("charge"), {"argument-customer_id": "7"})

    assert page.status_code == 200
    assert answer.status_code == 503 and "sy-error" in answer.content.decode()
    entry = AuditEntry.objects.get()
    assert (entry.outcome, entry.error) == ("failed", "BrokerUnavailable")
