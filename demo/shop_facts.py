"""What the sample work must know of the shop: whom to write statements for, and what is not paid yet."""

from __future__ import annotations

from typing import Any

STATEMENTS = 4


def find_facts() -> dict[str, Any]:
    """Return ids, months and an open invoice of the sample shop, as JSON can hold them.

    Returns:
        ``statements``: ``[customer id, month]`` pairs; ``month``: the newest full month; ``open_invoice``: number,
        amount and currency of an invoice nobody has paid; counts of ``customers``, ``invoices`` and ``payments``.
    """
    from apps.product.shop import months, queries
    from apps.product.shop.models import Customer, Invoice, InvoiceStatus

    running, *full = queries.months_with_invoices()
    month = full[0] if full else running
    first, after = months.bounds(month)
    buyers = Customer.objects.filter(invoices__issued_on__gte=first, invoices__issued_on__lt=after)
    unpaid = Invoice.objects.filter(status=InvoiceStatus.OPEN, payments__isnull=True).order_by("-id").first()
    return {
        "statements": [[customer.pk, month] for customer in buyers.distinct().order_by("id")[:STATEMENTS]],
        "month": month,
        "open_invoice": None
        if unpaid is None
        else {"number": unpaid.number, "amount": str(unpaid.total), "currency": unpaid.currency},
        "customers": queries.count_customers(),
        "invoices": queries.count_invoices(),
        "payments": queries.count_payments(),
    }
