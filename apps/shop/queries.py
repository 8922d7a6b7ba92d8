"""Reads of the shop for its admin and the other products.

Months are written ``YYYY-MM``; one that does not exist raises ``ValueError``.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from django.db.models import Model, QuerySet

from apps.shop import months
from apps.shop.models import Customer, Invoice, Payment

Row = TypeVar("Row", bound=Model)

CHUNK_ROWS = 500


def customer_or_none(customer_id: int) -> Customer | None:
    return Customer.objects.filter(pk=customer_id).first()


def invoices_of(customer: Customer, month: str) -> list[Invoice]:
    """Return the invoices a customer was sent in a month, oldest first, their ``lines`` loaded."""
    found = month_invoices(month).filter(customer=customer)
    return list(found.order_by("issued_on", "id").prefetch_related("lines"))


def payments_of(customer: Customer, month: str) -> list[Payment]:
    """Return the payments a customer made in a month, oldest first, their ``invoice`` loaded where there is one."""
    first, after = (months.midnight(day) for day in months.bounds(month))
    found = customer.payments.filter(received_at__gte=first, received_at__lt=after)
    return list(found.order_by("received_at", "id").select_related("invoice"))


def months_with_invoices() -> list[str]:
    """Return the months in which invoices were sent, newest first."""
    return [months.month_of(day) for day in Invoice.objects.dates("issued_on", "month", order="DESC")]


def stream(rows: QuerySet[Row], chunk_rows: int = CHUNK_ROWS) -> Iterator[Row]:
    """Yield every row by primary key, in chunks, so that memory and queries stay small."""
    last = 0
    while chunk := list(rows.filter(pk__gt=last).order_by("pk")[:chunk_rows]):
        yield from chunk
        last = chunk[-1].pk


def month_invoices(month: str) -> QuerySet[Invoice]:
    first, after = months.bounds(month)
    return Invoice.objects.filter(issued_on__gte=first, issued_on__lt=after)


def invoices_after(month: str, after_id: int, limit: int) -> list[Invoice]:
    """Return a month's next ``limit`` invoices by primary key, locked when inside a transaction.

    SQLite has no row locks; there a writer's transaction is alone anyway.
    """
    return list(month_invoices(month).filter(pk__gt=after_id).order_by("pk").select_for_update()[:limit])


def payments_for(invoices: Sequence[Invoice]) -> list[Payment]:
    return list(Payment.objects.filter(invoice__in=[invoice.pk for invoice in invoices]).order_by("pk"))


def unlinked_payments(customer_ids: Sequence[int]) -> list[Payment]:
    return list(Payment.objects.filter(invoice=None, customer__in=customer_ids).order_by("pk"))


def invoice_numbered(number: str) -> Invoice | None:
    return Invoice.objects.filter(number=number).first()
