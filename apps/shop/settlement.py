"""Settlement of invoices by payments. Pure functions."""

import re
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal

from apps.shop.models import Invoice, InvoiceStatus, Payment

ZERO = Decimal("0.00")
_NUMBER = re.compile(r"inv\W{0,3}(\d{4})\W{0,3}(\d{6})(?!\d)", re.IGNORECASE | re.ASCII)


def paid_amounts(invoices: Iterable[Invoice], payments: Iterable[Payment]) -> dict[int, Decimal]:
    """Return the sum of the payments linked to each invoice, by its id, in its currency; others do not count."""
    sums: defaultdict[tuple[int | None, str], Decimal] = defaultdict(lambda: ZERO)
    for payment in payments:
        sums[payment.invoice_id, payment.currency] += payment.amount
    return {invoice.pk: sums[invoice.pk, invoice.currency] for invoice in invoices}


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
