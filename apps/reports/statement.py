"""Content of a monthly statement as plain data: equal database content gives equal data, byte for byte.

All amounts are as of the end of the month, so a statement made a year later is equal unless older rows were changed.
"""

import datetime
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

from django.db.models import DecimalField, F, Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce, TruncMonth

from apps.shop import months
from apps.shop import queries as shop
from apps.shop.models import Customer, Invoice, InvoiceStatus, Payment

ZERO = Decimal("0.00")
CHART_MONTHS = 12
Totals = dict[str, Decimal]
DEFAULT_CURRENCY = "EUR"
# Days overdue at which a bucket starts; below 1 an invoice is not due yet.
AGES = ((1, "1 to 30 days late"), (31, "31 to 60 days late"), (61, "more than 60 days late"))


def build(customer: Customer, month: str) -> dict[str, Any]:
    """Return the content of a customer's monthly statement as text, ready for typesetting."""
    first, after = months.bounds(month)
    last = after - datetime.timedelta(days=1)
    invoices = shop.invoices_of(customer, month)
    payments = shop.payments_of(customer, month)
    opening = balances_before(customer, first)
    closing = balances_before(customer, after)
    unpaid = open_invoices(customer, after)
    counts = Counter([*(row.currency for row in invoices), *(row.currency for row in payments)])
    currencies = sorted({*opening, *closing, *counts}, key=lambda currency: (-counts[currency], currency))
    currencies = currencies or [DEFAULT_CURRENCY]
    totals = [_figures(currency, opening, closing, invoices, payments) for currency in currencies]
    main = currencies[0]
    unpaid_main = [(invoice, left) for invoice, left in unpaid if invoice.currency == main]
    open_total = sum((left for _, left in unpaid_main), ZERO)
    unmatched = open_total - closing.get(main, ZERO)
    return {
        "number": f"ST-{month}-{customer.pk:05d}",
        "customer": {
            "name": customer.name,
            "company": customer.company,
            "email": customer.email,
            "country": customer.country,
            "number": f"C-{customer.pk:05d}",
        },
        "month": {"name": f"{first:%B %Y}", "first": _day(first), "last": _day(last)},
        "currency": main,
        "totals": totals,
        "counts": {"invoices": len(invoices), "payments": len(payments), "open": len(unpaid)},
        "ages": _ages(unpaid_main, after),
        "open_total": money(open_total),
        "unmatched": money(unmatched) if unmatched else "",
        "chart": monthly_totals(customer, month, main),
        "invoices": _invoices(customer, invoices, after, main),
        "payments": [_payment(payment, main) for payment in payments],
        "open": [_open(invoice, left, after, main) for invoice, left in unpaid],
    }


def money(amount: Decimal, currency: str = "", main: str = "") -> str:
    """Return an amount as text: ``1,234.50``, a real minus sign, the currency where it is not the main one."""
    shown = f"{abs(amount):,.2f}"
    sign = "−" if amount < 0 else ""
    return f"{sign}{shown} {currency}" if currency != main else sign + shown


def _figures(
    currency: str, opening: Totals, closing: Totals, invoices: list[Invoice], payments: list[Payment]
) -> dict[str, Any]:
    valid = [row for row in invoices if row.currency == currency and row.status != InvoiceStatus.VOID]
    return {
        "currency": currency,
        "opening": money(opening.get(currency, ZERO)),
        "invoiced": money(sum((row.total for row in valid), ZERO)),
        "paid": money(sum((row.amount for row in payments if row.currency == currency), ZERO)),
        "closing": money(closing.get(currency, ZERO)),
        "amount": money(abs(closing.get(currency, ZERO))),
        "credit": closing.get(currency, ZERO) < 0,
    }


def _invoices(customer: Customer, invoices: list[Invoice], after: datetime.date, main: str) -> list[dict[str, Any]]:
    paid = paid_until(customer, invoices, after)
    return [
        {
            "number": invoice.number,
            "issued": _day(invoice.issued_on),
            "due": _day(invoice.due_on),
            "total": money(invoice.total, invoice.currency, main),
            "state": _state(invoice, paid.get(invoice.pk, ZERO), after),
            "lines": [
                {
                    "description": line.description,
                    "quantity": f"{line.quantity:,}",
                    "price": money(line.unit_price),
                    "amount": money(line.amount),
                }
                for line in invoice.lines.all()
            ],
        }
        for invoice in invoices
    ]


def _state(invoice: Invoice, paid: Decimal, after: datetime.date) -> dict[str, str]:
    if invoice.status == InvoiceStatus.VOID:
        return {"kind": "void", "label": "Void"}
    if paid >= invoice.total:
        return {"kind": "ok", "label": "Paid" if paid == invoice.total else "Overpaid"}
    if invoice.due_on < after:
        return {"kind": "bad", "label": "Overdue"}
    return {"kind": "warn", "label": "Partly paid" if paid else "Open"}


def _payment(payment: Payment, main: str) -> dict[str, str]:
    return {
        "day": _day(payment.received_at.astimezone(datetime.UTC).date()),
        "method": payment.get_method_display(),
        "reference": payment.reference,
        "invoice": payment.invoice.number if payment.invoice else "",
        "amount": money(payment.amount, payment.currency, main),
    }


def _open(invoice: Invoice, left: Decimal, after: datetime.date, main: str) -> dict[str, Any]:
    return {
        "number": invoice.number,
        "issued": _day(invoice.issued_on),
        "due": _day(invoice.due_on),
        "late_days": max(_days_late(invoice, after), 0),
        "total": money(invoice.total, invoice.currency, main),
        "left": money(left, invoice.currency, main),
    }


def _ages(unpaid: list[tuple[Invoice, Decimal]], after: datetime.date) -> list[dict[str, Any]]:
    sums = [ZERO] * (len(AGES) + 1)
    for invoice, left in unpaid:
        sums[sum(_days_late(invoice, after) >= start for start, _ in AGES)] += left
    labels = ["not due yet", *(label for _, label in AGES)]
    total = sum(sums, ZERO)
    return [
        {"label": label, "amount": money(amount), "share": round(float(amount / total), 4) if total else 0.0}
        for label, amount in zip(labels, sums, strict=True)
    ]


def _days_late(invoice: Invoice, after: datetime.date) -> int:
    return (after - datetime.timedelta(days=1) - invoice.due_on).days


def _day(day: datetime.date) -> str:
    return f"{day.day} {day:%b %Y}"


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


def monthly_totals(customer: Customer, month: str, currency: str) -> list[dict[str, Any]]:
    """Return what was invoiced and paid in each of the twelve months that end with ``month``, oldest first."""
    first, after = months.bounds(month)
    start = months.later(first, 1 - CHART_MONTHS)
    asked = _asked(customer, Q(issued_on__gte=start, issued_on__lt=after, currency=currency))
    paid = customer.payments.filter(
        received_at__gte=months.midnight(start), received_at__lt=months.midnight(after), currency=currency
    )
    invoiced_in = _by_month(asked.annotate(month=TruncMonth("issued_on")), "total")
    paid_in = _by_month(paid.annotate(month=TruncMonth("received_at", tzinfo=datetime.UTC)), "amount")
    return [
        {
            "month": f"{day:%b}",
            "year": str(day.year),
            "invoiced": float(invoiced_in.get(months.month_of(day), ZERO)),
            "paid": float(paid_in.get(months.month_of(day), ZERO)),
        }
        for day in (months.later(start, number) for number in range(CHART_MONTHS))
    ]


def _asked(customer: Customer, when: Q) -> QuerySet[Invoice]:
    return Invoice.objects.filter(when, customer=customer).exclude(status=InvoiceStatus.VOID).order_by()


def _by_month(rows: QuerySet, field: str) -> Totals:
    sums = rows.order_by().values_list("month").annotate(Sum(field))
    return {months.month_of(month): amount.quantize(ZERO) for month, amount in sums}
