"""Billing's admin: pages open, actions send work, nothing can be edited by hand."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from apps.billing import services
from apps.billing.models import PaymentEvent, Reconciliation
from tests.factories.shop import make_invoice, make_payment
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
LIVE = pytest.mark.django_db(transaction=True)  # work is sent when the transaction commits
PAGES = ["reconciliation", "reconciliationentry", "paymentevent"]


def reconcile(month: str = "2026-10") -> Reconciliation:
    services.reconcile(month, lambda done, total, note: None)
    return Reconciliation.objects.get(month=month)


def received(serial: int) -> PaymentEvent:
    data = {
        "id": f"pay_{serial}",
        "amount": "100.00",
        "currency": "EUR",
        "paid_at": "2026-10-20T12:00:00Z",
        "invoice_number": "",
        "reference": make_invoice().number,
    }
    return services.receive_event(f"evt_{serial}", {"type": "payment.received", "data": data})[0]


def act(client: Client, page: str, action: str, *rows):
    address = reverse(f"admin:billing_{page}_changelist")
    chosen = [row.pk for row in rows]
    return client.post(address, {"action": action, "_selected_action": chosen}, follow=True)


@pytest.mark.parametrize("page", PAGES)
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
def test_a_broker_that_refuses_is_told_and_the_page_stays_up(admin_client, facilities, full_broker):
    with full_broker():
        page = admin_client.post(reverse("admin:billing_reconciliation_add"), {"month": "2026-10"}, follow=True)

    assert page.status_code == 200
    assert "0 of 1 sent: broker refused" in page.content.decode()
