"""Datasets: their columns and the source of their rows."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from django.db.models import QuerySet

from apps.exports.models import Dataset
from apps.shop.models import Customer, Invoice, Payment

Kind = Literal["text", "integer", "money", "date", "moment"]
Cell = str | int | Decimal | datetime.date | datetime.datetime | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column: heading, value of its cells, and width in a spreadsheet (in characters)."""

    title: str
    kind: Kind
    width: int
    value: Callable[[Any], Cell]


@dataclass(frozen=True, slots=True)
class Table:
    """A dataset: columns, and the rows with what the columns read of their relations."""

    name: str
    columns: tuple[Column, ...]
    rows: QuerySet[Any]


TABLES: dict[str, Table] = {
    Dataset.INVOICES: Table(
        "Invoices",
        (
            Column("Invoice", "text", 18, lambda row: row.number),
            Column("Issued on", "date", 12, lambda row: row.issued_on),
            Column("Due on", "date", 12, lambda row: row.due_on),
            Column("Status", "text", 12, lambda row: row.get_status_display()),
            Column("Currency", "text", 9, lambda row: row.currency),
            Column("Total", "money", 14, lambda row: row.total),
            Column("Customer id", "integer", 11, lambda row: row.customer_id),
            Column("Customer", "text", 26, lambda row: row.customer.name),
            Column("Company", "text", 30, lambda row: row.customer.company),
            Column("E-mail", "text", 36, lambda row: row.customer.email),
        ),
        Invoice.objects.select_related("customer"),
    ),
    Dataset.PAYMENTS: Table(
        "Payments",
        (
            Column("Payment", "text", 18, lambda row: row.external_id),
            Column("Received at (UTC)", "moment", 20, lambda row: row.received_at),
            Column("Method", "text", 15, lambda row: row.get_method_display()),
            Column("Reference", "text", 30, lambda row: row.reference),
            Column("Invoice", "text", 18, lambda row: row.invoice.number if row.invoice else None),
            Column("Currency", "text", 9, lambda row: row.currency),
            Column("Amount", "money", 14, lambda row: row.amount),
            Column("Customer id", "integer", 11, lambda row: row.customer_id),
            Column("Customer", "text", 26, lambda row: row.customer.name),
        ),
        Payment.objects.select_related("customer", "invoice"),
    ),
    Dataset.CUSTOMERS: Table(
        "Customers",
        (
            Column("Customer id", "integer", 11, lambda row: row.pk),
            Column("Name", "text", 26, lambda row: row.name),
            Column("Company", "text", 30, lambda row: row.company),
            Column("E-mail", "text", 36, lambda row: row.email),
            Column("Country", "text", 8, lambda row: row.country),
            Column("Customer since (UTC)", "moment", 20, lambda row: row.created_at),
        ),
        Customer.objects.all(),
    ),
}
