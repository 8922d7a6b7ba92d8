"""Actors of billing may run again after a crash: rows and results stay as after one run."""

from datetime import UTC, datetime

import pytest
import time_machine

from apps.billing import services
from apps.billing.actors import apply_payment_event, reconcile_current_month, reconcile_month
from apps.shop.models import InvoiceStatus, Payment
from switchyard.limits import lock
from switchyard.testing import redelivered, run_enqueued
from tests.factories.shop import make_invoice, make_payment

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("switchyard_broker")]


@time_machine.travel(datetime(2026, 11, 21, 12, tzinfo=UTC))
def test_every_actor_of_billing_can_be_repeated():
    make_payment(make_invoice(total="100.00", status=InvoiceStatus.OPEN), amount="100.00")
    make_invoice(total="50.00", status=InvoiceStatus.PAID)
    wanted = make_invoice(total="20.00", issued_on="2026-11-02")
    data = {"id": "pay_1", "invoice_number": wanted.number, "reference": "", "amount": "20.00", "currency": "EUR"}
    payload = {"data": {**data, "paid_at": "2026-11-03T10:00:00+00:00"}}
    event, _ = services.receive_event("event-1", payload)
    reconcile_month.send("2026-10")
    apply_payment_event.send(event.pk)
    reconcile_current_month.send()

    assert redelivered() == ["apply_payment_event", "reconcile_current_month", "reconcile_month"]
    assert Payment.objects.filter(external_id="pay_1").count() == 1


def test_a_second_job_has_corrected_nothing():
    make_invoice(total="50.00", status=InvoiceStatus.PAID)
    reconcile_month.send("2026-10")
    first = run_enqueued()

    with time_machine.travel(datetime(2100, 1, 1, tzinfo=UTC)):
        reconcile_month.send("2026-10")
        second = run_enqueued()

    assert [attempt.result["corrected"] for attempt in (*first, *second)] == [1, 0]


def test_a_month_is_reconciled_by_one_run_at_a_time():
    reconcile_month.send("2026-10")
    with lock("reconcile 2026-10"):
        refused = run_enqueued(raises=False)

    [done] = run_enqueued(delayed=True)

    assert ([attempt.outcome for attempt in refused], done.outcome) == (["deferred"], "succeeded")
