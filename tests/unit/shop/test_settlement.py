"""State of an invoice as its payments determine it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from apps.shop import settlement
from apps.shop.models import Invoice, InvoiceStatus, Payment


@pytest.mark.parametrize(
    ("paid", "status"),
    [
        *(("0.00", InvoiceStatus.OPEN), ("0.01", InvoiceStatus.PARTLY_PAID), ("99.99", InvoiceStatus.PARTLY_PAID)),
        *(("100.00", InvoiceStatus.PAID), ("100.01", InvoiceStatus.OVERPAID)),
    ],
)
def test_status_follows_what_was_paid(paid, status):
    assert settlement.status_for(Decimal("100.00"), Decimal(paid)) == status


def test_an_invoice_over_nothing_is_paid():
    assert settlement.status_for(Decimal("0.00"), Decimal("0.00")) == InvoiceStatus.PAID


def test_only_linked_payments_in_the_invoices_currency_count():
    invoice = Invoice(pk=1, currency="EUR")
    payments = [
        Payment(invoice_id=1, amount=Decimal("0.10"), currency="EUR"),
        Payment(invoice_id=1, amount=Decimal("0.20"), currency="EUR"),
        Payment(invoice_id=1, amount=Decimal("50.00"), currency="USD"),
        Payment(invoice_id=2, amount=Decimal("50.00"), currency="EUR"),
        Payment(invoice_id=None, amount=Decimal("50.00"), currency="EUR"),
    ]

    assert settlement.paid_amounts([invoice], payments) == {1: Decimal("0.30")}


@pytest.mark.parametrize(
    "reference",
    [
        *("INV-2026-000042", "inv 2026 000042", "Rg. inv2026000042", "payment for INV-2026/000042 thanks"),
        "INV-2026-000042, inv2026000042",
    ],
)
def test_an_invoice_number_is_found_however_it_is_spelt(reference):
    assert settlement.invoice_number(reference) == "INV-2026-000042"


@pytest.mark.parametrize(
    "reference", ["", "thank you", "INV-2026", "INV-2026-0000421", "INV-2026-000042 and INV-2026-000043", "2026-000042"]
)
def test_a_reference_without_exactly_one_number_names_no_invoice(reference):
    assert settlement.invoice_number(reference) is None
