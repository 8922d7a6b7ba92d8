"""Settlement of invoices by payments. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from apps.shop.models import Invoice, InvoiceStatus, Payment

ZERO = Decimal("0.00")
_NUMBER = re.compile(r"inv\W{0,3}(\d{4})\W{0,3}(\d{6})(?!\d)", re.IGNORECASE | re.ASCII)


def paid_amount(invoice: Invoice, payments: Iterable[Payment]) -> Decimal:
    """Return the sum of the payments linked to an invoice, in its currency; other currencies do not count."""
    linked = (p for p in payments if p.invoice_id == invoice.pk and p.currency == invoice.currency)
    return sum((payment.amount for payment in linked), ZERO)


def status_for(total: Decimal, paid: Decimal) -> InvoiceStatus:
    """Return the status of an invoice over ``total`` with ``paid`` received."""
    if paid > total:
        return InvoiceStatus.OVERPAID
    if paid == total:
        return InvoiceStatus.PAID
    return InvoiceStatus.PARTLY_PAID if paid > ZERO else InvoiceStatus.OPEN


def invoice_number(reference: str) -> str | None:
    """Return the only invoice number in a payer's text, in any spelling: ``inv 2026 000042`` is INV-2026-000042.

    ``None`` when there is none, or more than one: a person has to split such a payment.
    """
    numbers = {f"INV-{year}-{serial}" for year, serial in _NUMBER.findall(reference)}
    return numbers.pop() if len(numbers) == 1 else None
