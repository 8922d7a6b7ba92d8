"""A payment event is kept once, and applied once."""

from __future__ import annotations

from decimal import Decimal

import pytest

from apps.billing import services
from apps.billing.models import EventState, PaymentEvent
from apps.shop.models import Invoice, InvoiceStatus, Payment
from tests.factories.shop import make_invoice

pytestmark = pytest.mark.django_db


def payload(**changes) -> dict:
    data = {
        "id": "pay_1", "amount": "100.00", "currency": "EUR", "paid_at": "2026-10-20T12:00:00Z", "invoice_number": "",
        "reference": "",
    }  # fmt: skip
    return {"type": "payment.received", "data": data | changes}


def received(external_id: str = "evt_1", **changes) -> PaymentEvent:
    return services.receive_event(external_id, payload(**changes))[0]


@pytest.mark.parametrize("how", ["invoice_number", "reference"])
def test_an_event_becomes_a_payment_and_its_invoice_is_paid(how):
    invoice = make_invoice(total="100.00")
    event = received(**{how: invoice.number})

    assert services.apply_event(event.pk) == EventState.APPLIED

    payment = Payment.objects.get(external_id="pay_1")
    event.refresh_from_db()
    assert (payment.invoice, payment.customer, payment.amount) == (invoice, invoice.customer, Decimal("100.00"))
    assert Invoice.objects.get().status == InvoiceStatus.PAID
    assert event.payment == payment and event.applied_at is not None


def test_applying_again_changes_nothing():
    event = received(reference=make_invoice(total="100.00").number)
    services.apply_event(event.pk)
    Payment.objects.update(amount=Decimal("55.00"))

    assert services.apply_event(event.pk) == EventState.APPLIED

    assert Payment.objects.get().amount == Decimal("55.00")


def test_two_events_of_one_payment_make_one_payment():
    invoice = make_invoice(total="100.00")
    for external_id in ("evt_1", "evt_2"):
        services.apply_event(received(external_id, reference=invoice.number).pk)

    assert Payment.objects.count() == 1
    assert Invoice.objects.get().status == InvoiceStatus.PAID


def test_an_event_that_names_no_invoice_waits_for_a_person():
    event = received(reference="thank you")

    assert services.apply_event(event.pk) == EventState.UNPLACED
    assert not Payment.objects.exists()


def test_an_event_finds_its_invoice_once_that_exists():
    event = received(reference="INV-2026-999999")
    services.apply_event(event.pk)
    invoice = make_invoice(number="INV-2026-999999")

    assert services.apply_event(event.pk) == EventState.APPLIED
    assert Payment.objects.get().invoice == invoice
