"""The admin: every page loads, actions check their own permission, secrets stay hidden."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from apps.webhooks import delivering
from apps.webhooks.delivering import DeliveryFailed
from apps.webhooks.models import DeliveryState, Endpoint
from tests.factories.staff import client_of, log_in

pytestmark = pytest.mark.django_db


def act(client: Client, model: str, action: str, *keys: object):
    url = reverse(f"admin:webhooks_{model}_changelist")
    return client.post(url, {"action": action, "_selected_action": [str(key) for key in keys]}, follow=True)


@pytest.fixture
def failed(receiver, make_delivery, facilities):
    delivery = make_delivery(receiver.url + "broken")
    with pytest.raises(DeliveryFailed):
        delivering.deliver(str(delivery.pk), is_last=True)
    return delivery


def test_every_page_loads_and_shows_no_secret(failed):
    client = log_in()
    pages = [reverse(f"admin:webhooks_{model}_changelist") for model in ("endpoint", "event", "delivery")]
    pages += [
        reverse("admin:webhooks_endpoint_change", args=[failed.endpoint_id]),
        reverse("admin:webhooks_event_change", args=[failed.event_id]),
        reverse("admin:webhooks_delivery_change", args=[failed.pk]),
    ]

    texts = [client.get(page) for page in pages]

    assert [page.status_code for page in texts] == [200] * 6
    assert all(failed.endpoint.secret not in page.content.decode() for page in texts)
    assert failed.endpoint.secret[-4:] in texts[3].content.decode()
    delivery_page = texts[5].content.decode()
    assert failed.webhook_id in delivery_page and "answered 500" in delivery_page
    assert '<div class="readonly">–</div>' in delivery_page


def test_hostile_text_is_shown_as_text(failed):
    failed.attempts.update(response_excerpt="<script>alert(1)</script>", error="<img src=x onerror=alert(2)>")
    Endpoint.objects.update(url="http://127.0.0.1/<svg/onload=alert(3)>")

    page = log_in().get(reverse("admin:webhooks_delivery_change", args=[failed.pk])).content.decode()

    assert "<script>alert(1)" not in page and "<img src=x" not in page and "<svg/onload" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.django_db(transaction=True)
def test_redelivering_enqueues_a_new_job(failed, facilities):
    page = act(log_in(), "delivery", "redeliver", failed.pk)

    failed.refresh_from_db()
    assert "1 on the way again" in page.content.decode()
    assert failed.state == DeliveryState.PENDING
    assert facilities.records.read(failed.job_id).state == "queued"


def test_endpoints_are_disabled_and_enabled(failed):
    client = log_in()

    act(client, "endpoint", "disable", failed.endpoint_id)
    disabled = Endpoint.objects.get()
    act(client, "endpoint", "enable", failed.endpoint_id)

    assert (disabled.active, disabled.disabled_reason) == (False, "disabled by root")
    assert (Endpoint.objects.get().active, Endpoint.objects.get().disabled_reason) == (True, "")


@pytest.mark.django_db(transaction=True)
def test_a_delivery_leads_to_its_job(failed):
    act(log_in(), "delivery", "redeliver", failed.pk)
    failed.refresh_from_db()
    client = client_of(User.objects.get(username="root"))

    page = client.get(reverse("admin:webhooks_delivery_change", args=[failed.pk])).content.decode()

    assert f'href="{reverse("switchyard-job", args=[failed.job_id])}"' in page
