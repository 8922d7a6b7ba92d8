"""Writes of the shop: each may run twice."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest

from apps.shop import services
from apps.shop.models import Invoice, InvoiceStatus, Payment
from tests.factories.shop import make_invoice, make_payment

pytestmark = pytest.mark.django_db

AT = datetime.datetime(2026, 10, 20, 12, tzinfo=datetime.UTC)


def record(invoice: Invoice, amount: str, external_id: str = "pay_1") -> Payment:
    return services.record_payment(
        external_id=external_id, invoice=invoice, amount=Decimal(amount), currency="EUR", received_at=AT
    )


def status_of(invoice: Invoice) -> str:
    return Invoice.objects.get(pk=invoice.pk).status


def test_a_payment_in_full_makes_its_invoice_paid():
    invoice = make_invoice(total="100.00")

    payment = record(invoice, "100.00")

    assert (payment.invoice, payment.customer) == (invoice, invoice.customer)
    assert status_of(invoice) == InvoiceStatus.PAID


def test_the_same_payment_twice_counts_once():
    invoice = make_invoice(total="100.00")

    record(invoice, "60.00")
    record(invoice, "60.00")

    assert Payment.objects.count() == 1
    assert status_of(invoice) == InvoiceStatus.PARTLY_PAID


def test_a_payment_that_moves_brings_both_invoices_up_to_date():
    wrong, right = make_invoice(total="100.00"), make_invoice(total="100.00")
    record(wrong, "100.00")

    record(right, "100.00")

    assert status_of(wrong) == InvoiceStatus.OPEN
    assert status_of(right) == InvoiceStatus.PAID
    assert Payment.objects.get().customer == right.customer


def test_a_void_invoice_stays_void_whatever_is_paid():
    invoice = make_invoice(status=InvoiceStatus.VOID)

    record(invoice, "100.00")

    assert status_of(invoice) == InvoiceStatus.VOID


def test_only_statuses_that_differ_are_written(django_assert_num_queries):
    wrong, right = make_invoice(), make_invoice(status=InvoiceStatus.PAID)
    paid = {wrong.pk: wrong.total, right.pk: right.total}

    assert services.settle([wrong, right], paid) == {wrong.pk: InvoiceStatus.OPEN}
    assert services.settle([wrong, right], paid) == {}

    assert status_of(wrong) == InvoiceStatus.PAID


def test_linking_leaves_other_payments_alone():
    invoice = make_invoice()
    known, unknown = make_payment(customer=invoice.customer), make_payment(customer=invoice.customer)

    assert services.link_payments([known, unknown], {known.pk: invoice.pk}) == [known]

    assert list(Payment.objects.filter(invoice=invoice)) == [known]
