"""Reads of the shop for statements, beside the month's own rows: balances and open invoices."""

from __future__ import annotations

import datetime
from collections import defaultdict
from decimal import Decimal

from django.db.models import DecimalField, F, Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce, TruncMonth

from apps.shop import months
from apps.shop.models import Customer, Invoice, InvoiceStatus, Payment

ZERO = Decimal("0.00")
CHART_MONTHS = 12
Totals = dict[str, Decimal]


def balances_before(customer: Customer, day: datetime.date) -> Totals:
    """Return the customer's balance at the start of a day, by currency: invoices minus payments, without void ones."""
    balances: Totals = defaultdict(lambda: ZERO)
    for currency, total in _asked(customer, Q(issued_on__lt=day)).values_list("currency").annotate(Sum("total")):
        balances[currency] += total
    paid = customer.payments.filter(received_at__lt=months.midnight(day)).order_by()
    for currency, amount in paid.values_list("currency").annotate(Sum("amount")):
        balances[currency] -= amount
    return {currency: amount.quantize(ZERO) for currency, amount in balances.items()}


def open_invoices(customer: Customer, after: datetime.date) -> list[tuple[Invoice, Decimal]]:
    """Return the invoices not fully paid at the start of a day, by due date, each with its open amount."""
    paid = Sum("payments__amount", filter=Q(payments__received_at__lt=months.midnight(after)))
    zero = Value(ZERO, DecimalField(max_digits=12, decimal_places=2))
    found = _asked(customer, Q(issued_on__lt=after)).annotate(left=F("total") - Coalesce(paid, zero))
    rows = found.filter(left__gt=0).order_by("due_on", "id")
    return [(invoice, Decimal(invoice.left).quantize(ZERO)) for invoice in rows]


def paid_until(customer: Customer, invoices: list[Invoice], after: datetime.date) -> dict[int, Decimal]:
    """Return the amount paid for each invoice before the start of a day, by primary key."""
    rows = Payment.objects.filter(
        invoice__in=[invoice.pk for invoice in invoices], received_at__lt=months.midnight(after)
    )
    sums = rows.order_by().values_list("invoice").annotate(Sum("amount"))
    return {invoice: amount.quantize(ZERO) for invoice, amount in sums if invoice is not None}


def monthly_totals(customer: Customer, month: str, currency: str) -> list[tuple[str, Decimal, Decimal]]:
    """Return ``(month, invoiced, paid)`` for the twelve months that end with ``month``, oldest first."""
    first, after = months.bounds(month)
    start = months.later(first, 1 - CHART_MONTHS)
    asked = _asked(customer, Q(issued_on__gte=start, issued_on__lt=after, currency=currency))
    paid = customer.payments.filter(
        received_at__gte=months.midnight(start), received_at__lt=months.midnight(after), currency=currency
    )
    invoiced_in = _by_month(asked.annotate(month=TruncMonth("issued_on")), "total")
    paid_in = _by_month(paid.annotate(month=TruncMonth("received_at", tzinfo=datetime.UTC)), "amount")
    span = [months.month_of(months.later(start, number)) for number in range(CHART_MONTHS)]
    return [(name, invoiced_in.get(name, ZERO), paid_in.get(name, ZERO)) for name in span]


def _asked(customer: Customer, when: Q) -> QuerySet[Invoice]:
    return Invoice.objects.filter(when, customer=customer).exclude(status=InvoiceStatus.VOID).order_by()


def _by_month(rows: QuerySet, field: str) -> Totals:
    sums = rows.order_by().values_list("month").annotate(Sum(field))
    return {months.month_of(month): amount.quantize(ZERO) for month, amount in sums}
