"""Signed payment events are accepted from any sender, and recorded once however often they are sent."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from django.test import Client

from apps.billing import signatures
from apps.billing.actors import apply_payment_event
from apps.billing.models import EventState, PaymentEvent
from apps.shop.models import Payment
from switchyard.broker.errors import BrokerUnavailable
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit
from tests.factories.shop import make_invoice
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
LIVE = pytest.mark.django_db(transaction=True)  # a worker or another thread reads what the test writes
PATH = "/api/v1/payments/events"


def body(**changes: Any) -> bytes:
    data = {"id": "pay_1", "amount": "100.00", "currency": "EUR", "paid_at": "2026-10-20T12:00:00Z", "reference": "x"}
    return json.dumps({"type": "payment.received", "data": data | changes}).encode()


def post(content: bytes, webhook_id: str = "evt_1", *, secret: str | None = None, **changes: str):
    signed = signatures.signed_headers(secret or settings.PAYMENT_SECRET, webhook_id, content)
    sent = {name: value for name, value in (signed | changes).items() if value}
    return Client().post(PATH, data=content, content_type="application/json", headers=sent)


def test_the_description_lists_what_a_full_queue_answers():
    operation = Client().get("/api/v1/openapi.json").json()["paths"][PATH]["post"]

    assert {"202", "401", "409", "429", "503"} <= operation["responses"].keys()


@pytest.fixture
def waiting(facilities):
    return lambda: facilities.transport.stats("urgent").live.waiting


@LIVE
def test_the_same_event_from_ten_senders_at_once_is_applied_once(facilities, run_worker):
    content = body(invoice_number=make_invoice().number)
    start, statuses = threading.Barrier(10), []

    def send() -> None:
        start.wait()
        statuses.append(post(content).status_code)
        connections.close_all()

    threads = [threading.Thread(target=send) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with run_worker("urgent"):
        wait_for(lambda: PaymentEvent.objects.filter(state=EventState.APPLIED).exists())
        wait_for(lambda: facilities.transport.stats("urgent").live.running == 0)
    late = post(content)

    assert statuses == [202] * 10
    assert (late.status_code, facilities.transport.stats("urgent").live.waiting) == (202, 0)
    assert (PaymentEvent.objects.count(), Payment.objects.count()) == (1, 1)


def test_a_wrong_secret_is_refused_before_the_body_is_read(facilities):
    assert post(b"no json", secret="some other secret that nobody knows of").status_code == 401


def test_another_event_under_the_same_id_is_refused(waiting):
    post(body())

    answer = post(body(amount="1.00"))

    assert answer.status_code == 409
    assert waiting() == 1


def test_the_same_event_written_differently_is_the_same(waiting):
    post(body(amount="100.00"))

    assert post(body(amount=100) + b"\n").status_code == 202
    assert waiting() == 1


def test_an_event_whose_enqueue_failed_is_enqueued_when_it_comes_again(waiting, full_broker):
    with full_broker():
        refused = post(body())
    taken = post(body())

    assert (refused.status_code, taken.status_code) == (503, 202)
    assert refused["Retry-After"]
    assert (PaymentEvent.objects.count(), waiting()) == (1, 1)


@LIVE
def test_a_job_whose_event_was_deleted_is_dead_at_once(facilities, run_worker):
    job_id = submit(apply_payment_event, kwargs={"event_id": 10**6})
    with run_worker("urgent"):
        job = wait_for(lambda: (found := find_job(job_id)) and found.ended and found)

    assert (job.state, job.reason) == ("dead", "permanent")


def test_an_event_that_may_have_been_enqueued_is_enqueued_once(waiting, monkeypatch):
    def lose_answer(*args: Any, **options: Any) -> str:
        submit(*args, **options)
        raise BrokerUnavailable("enqueue", "the answer was lost")

    monkeypatch.setattr("apps.billing.api.submit", lose_answer)
    lost = post(body())
    monkeypatch.undo()
    again = post(body())

    assert (lost.status_code, again.status_code) == (503, 202)
    assert lost.json()["outcome"] == "unknown"
    assert "send the request again" in lost.json()["detail"]
    assert waiting() == 1
