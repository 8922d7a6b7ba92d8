"""Billing's API and admin: events recorded once however often they are sent, months reconciled by a real worker."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from django.test import Client
from django.urls import reverse

from apps.billing import services, signatures
from apps.billing.actors import apply_payment_event, reconcile_current_month, reconcile_month
from apps.billing.models import EventState, PaymentEvent, Reconciliation
from apps.shop.models import Payment
from switchyard.broker.errors import BrokerUnavailable
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit
from tests.factories.brokers import full
from tests.factories.callers import Caller
from tests.factories.shop import make_invoice, make_payment
from tests.unit.api.conftest import problem
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
LIVE = pytest.mark.django_db(transaction=True)  # a worker or another thread reads what the test writes
PATH = "/api/v1/payments/events"


def body(**changes: Any) -> bytes:
    data = {"id": "pay_1", "amount": "100.00", "currency": "EUR", "paid_at": "2026-10-20T12:00:00Z", "reference": "x"}
    return json.dumps({"type": "payment.received", "data": data | changes}).encode()


def post(content: bytes, *, of: bytes = b"", secret: str = "", at_s: float | None = None, **changes: str):
    signed = signatures.signed_headers(secret or settings.PAYMENT_SECRET, "evt_1", of or content, now_s=at_s)
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
    start = threading.Barrier(10)

    def send(number: int) -> int:
        start.wait(30)
        try:
            return post(content).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(10) as senders:
        statuses = list(senders.map(send, range(10)))
    with run_worker("urgent"):
        wait_for(lambda: PaymentEvent.objects.filter(state=EventState.APPLIED).exists())
        wait_for(lambda: facilities.transport.stats("urgent").live.running == 0)
    late = post(content)

    assert (statuses, late.status_code, facilities.transport.stats("urgent").live.waiting) == ([202] * 10, 202, 0)
    assert (PaymentEvent.objects.count(), Payment.objects.count()) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"secret": "some other secret that nobody knows of"},
        {"webhook-id": "", "webhook-timestamp": "", "webhook-signature": ""},
        {"webhook-signature": "v1,AAAA"},
        {"at_s": time.time() - 3_600},
        {"of": b"no json "},
    ],
    ids=["another secret", "no signature", "another signature", "of an hour ago", "of another body"],
)
def test_what_is_not_signed_is_refused_before_the_body_is_read(waiting, change):
    problem(post(b"no json", **change), 401)
    assert waiting() == 0


def test_another_event_under_the_same_id_is_refused(waiting):
    post(body())

    assert (post(body(amount="1.00")).status_code, waiting()) == (409, 1)


def test_the_same_event_written_differently_is_the_same(waiting):
    post(body(amount="100.00"))

    assert (post(body(amount=100) + b"\n").status_code, waiting()) == (202, 1)


def test_an_event_whose_enqueue_failed_is_enqueued_when_it_comes_again(waiting, valkey):
    with full(valkey):
        refused = post(body())
    assert (refused.status_code, post(body()).status_code) == (503, 202)
    assert refused["Retry-After"]
    assert (PaymentEvent.objects.count(), waiting()) == (1, 1)


def test_an_event_that_may_have_been_enqueued_is_enqueued_once(waiting, monkeypatch):
    def lose_answer(*args: Any, **options: Any) -> str:
        submit(*args, **options)
        raise BrokerUnavailable("enqueue", "the answer was lost")

    monkeypatch.setattr("apps.billing.api.submit", lose_answer)
    lost = post(body())
    monkeypatch.undo()
    assert (lost.status_code, post(body()).status_code, lost.json()["outcome"]) == (503, 202, "unknown")
    assert "send the request again" in lost.json()["detail"]
    assert waiting() == 1


def finished(job_id: str):
    return wait_for(lambda: (job := find_job(job_id)) and job.ended and job, what=f"job {job_id} ended")


@LIVE
def test_a_month_is_reconciled_and_the_result_is_kept(facilities, run_worker):
    make_payment(make_invoice())
    make_invoice()

    answer = Caller().post("/reconciliations", {"month": "2026-10"})
    with run_worker("billing"):
        job = finished(answer.json()["job_id"])

    assert (answer.status_code, job.state) == (202, "succeeded")
    assert job.result == {"matched": 1, "unmatched": 1, "corrected": 1}
    assert (job.progress["done"], job.progress["total"]) == (2, 2)


@LIVE
@pytest.mark.parametrize(
    ("actor", "kwargs", "queue"),
    [(reconcile_month, {"month": "2026-13"}, "billing"), (apply_payment_event, {"event_id": 10**6}, "urgent")],
    ids=["a wrong month in a hand-made message", "an event that was deleted"],
)
def test_what_cannot_succeed_is_dead_at_once(actor, kwargs, queue, facilities, run_worker):
    job_id = submit(actor, kwargs=kwargs)

    with run_worker(queue):
        job = finished(job_id)

    assert (job.state, job.reason, job.attempts) == ("dead", "permanent", 1)


@LIVE
def test_the_nightly_run_covers_the_running_month_and_the_one_before(facilities, run_worker, time_machine):
    time_machine.move_to("2027-01-05T02:15:00Z", tick=True)
    with run_worker("billing"):
        job = finished(submit(reconcile_current_month, kwargs={}))

    assert list(job.result) == ["2026-12", "2027-01"]
    assert set(Reconciliation.objects.values_list("month", flat=True)) == {"2026-12", "2027-01"}


def reconcile(month: str = "2026-10") -> Reconciliation:
    services.reconcile(month, lambda done, total, note: None)
    return Reconciliation.objects.get(month=month)


def received(serial: int) -> PaymentEvent:
    payload = json.loads(body(id=f"pay_{serial}", invoice_number="", reference=make_invoice().number))
    return services.receive_event(f"evt_{serial}", payload)[0]


def act(client: Client, page: str, action: str, *rows):
    address = reverse(f"admin:billing_{page}_changelist")
    return client.post(address, {"action": action, "_selected_action": [row.pk for row in rows]}, follow=True)


@pytest.mark.parametrize("page", ["reconciliation", "reconciliationentry", "paymentevent"])
def test_a_list_needs_as_many_queries_for_ten_rows_as_for_two(page, admin_client, django_assert_max_num_queries):
    address = reverse(f"admin:billing_{page}_changelist")

    def grow(count: int) -> None:
        for _ in range(count):
            serial = PaymentEvent.objects.count()
            services.apply_event(received(serial).pk)
            reconcile(f"{2000 + serial}-10")
        reconcile()

    grow(2)
    admin_client.get(address)
    with django_assert_max_num_queries(40) as few:
        admin_client.get(address)
    most = len(few.captured_queries)
    grow(8)
    admin_client.get(address)  # reads the verdict anew, which a page keeps for 5 s

    with django_assert_max_num_queries(most):
        assert admin_client.get(address).status_code == 200


@LIVE
def test_adding_a_month_reconciles_it(admin_client, facilities, run_worker):
    make_payment(make_invoice())

    page = admin_client.post(reverse("admin:billing_reconciliation_add"), {"month": "2026-10"}, follow=True)
    with run_worker("billing"):
        wait_for(lambda: Reconciliation.objects.get().finished_at)

    assert "1 reconciling (job " in page.content.decode()
    assert Reconciliation.objects.get().matched == 1


@pytest.mark.parametrize("month", ["2026-13", "9999-12", "october"])
def test_a_month_that_does_not_exist_cannot_be_added(month, admin_client, facilities):
    admin_client.post(reverse("admin:billing_reconciliation_add"), {"month": month})

    assert not Reconciliation.objects.exists()
    assert facilities.transport.stats("billing").live.waiting == 0


@LIVE
def test_reconcile_this_month_sends_one_job_a_month(admin_client, facilities):
    act(admin_client, "reconciliation", "reconcile_again", reconcile("2026-09"), reconcile("2026-10"))

    assert facilities.transport.stats("billing").live.waiting == 2


@LIVE
def test_a_broker_that_refuses_is_told_and_the_page_stays_up(admin_client, facilities, valkey):
    with full(valkey):
        page = admin_client.post(reverse("admin:billing_reconciliation_add"), {"month": "2026-10"}, follow=True)

    assert page.status_code == 200
    assert "0 of 1 sent: broker refused" in page.content.decode()
