"""Reads of the shop: the right rows, in few queries."""

from __future__ import annotations

import pytest

from apps.shop import queries
from apps.shop.models import Customer, Invoice, Payment
from tests.factories.shop import make_customer, make_invoice, make_payment

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("customer_id", [0, -1, 10**6, 2**63, 10**30])
def test_an_id_that_no_customer_has_finds_none(customer_id):
    make_customer()

    assert queries.customer_or_none(customer_id) is None


def test_a_months_invoices_are_those_issued_in_it_by_that_customer(django_assert_num_queries):
    customer = make_customer()
    make_invoice(customer, issued_on="2026-09-30")
    last = make_invoice(customer, issued_on="2026-10-31")
    first = make_invoice(customer, issued_on="2026-10-01")
    make_invoice(customer, issued_on="2026-11-01")
    make_invoice(issued_on="2026-10-15")

    with django_assert_num_queries(2):
        found = queries.invoices_of(customer, "2026-10")
        assert [line.description for invoice in found for line in invoice.lines.all()] == ["Consulting, hour"] * 2

    assert found == [first, last]


def test_a_months_payments_are_those_received_in_it_in_utc(django_assert_num_queries):
    invoice = make_invoice()
    make_payment(invoice, received_at="2026-09-30T23:59:59.999999+00:00")
    first = make_payment(invoice, received_at="2026-10-01T00:00:00+00:00")
    last = make_payment(invoice, received_at="2026-10-31T23:59:59.999999+00:00")
    make_payment(invoice, received_at="2026-11-01T00:00:00+00:00")
    make_payment(received_at="2026-10-15T12:00:00+00:00")

    with django_assert_num_queries(1):
        found = queries.payments_of(invoice.customer, "2026-10")
        assert {payment.invoice.number for payment in found} == {invoice.number}

    assert found == [first, last]


def test_months_with_invoices_are_listed_newest_first():
    for day in ("2026-01-31", "2025-12-01", "2026-01-02", "2026-05-05"):
        make_invoice(issued_on=day)

    assert queries.months_with_invoices() == ["2026-05", "2026-01", "2025-12"]


def test_streams_yield_every_row_once_in_chunks(django_assert_num_queries):
    customer = make_customer()
    invoices = [make_invoice(customer) for _ in range(5)]
    payments = [make_payment(invoices[0]), make_payment(customer=customer)]

    with django_assert_num_queries(4):
        rows = queries.stream(Invoice.objects.select_related("customer"), chunk_rows=2)
        streamed = [(invoice.pk, invoice.customer.name) for invoice in rows]

    assert streamed == [(invoice.pk, customer.name) for invoice in invoices]
    assert list(queries.stream(Payment.objects.all(), chunk_rows=1)) == payments
    assert list(queries.stream(Customer.objects.all())) == [customer]


def test_rows_added_behind_a_stream_do_not_move_it():
    first, second = make_customer(), make_customer()
    stream = queries.stream(Customer.objects.all(), chunk_rows=1)

    seen = [next(stream)]
    first.delete()
    seen += list(stream)

    assert [customer.email for customer in seen] == [first.email, second.email]
