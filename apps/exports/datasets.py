"""Datasets: their columns and the source of their rows."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from apps.exports.models import Dataset
from apps.shop import queries as shop
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
    """A dataset: columns, row count, and the rows, read from the database in chunks."""

    name: str
    columns: tuple[Column, ...]
    count: Callable[[], int]
    rows: Callable[[], Iterator[Any]]


def _invoice(title: str, kind: Kind, width: int, value: Callable[[Invoice], Cell]) -> Column:
    return Column(title, kind, width, value)


def _payment(title: str, kind: Kind, width: int, value: Callable[[Payment], Cell]) -> Column:
    return Column(title, kind, width, value)


def _customer(title: str, kind: Kind, width: int, value: Callable[[Customer], Cell]) -> Column:
    return Column(title, kind, width, value)


TABLES: dict[str, Table] = {
    Dataset.INVOICES: Table(
        "Invoices",
        (
            _invoice("Invoice", "text", 18, lambda row: row.number),
            _invoice("Issued on", "date", 12, lambda row: row.issued_on),
            _invoice("Due on", "date", 12, lambda row: row.due_on),
            _invoice("Status", "text", 12, lambda row: row.get_status_display()),
            _invoice("Currency", "text", 9, lambda row: row.currency),
            _invoice("Total", "money", 14, lambda row: row.total),
            _invoice("Customer id", "integer", 11, lambda row: row.customer_id),
            _invoice("Customer", "text", 26, lambda row: row.customer.name),
            _invoice("Company", "text", 30, lambda row: row.customer.company),
            _invoice("E-mail", "text", 36, lambda row: row.customer.email),
        ),
        shop.count_invoices,
        shop.stream_invoices,
    ),
    Dataset.PAYMENTS: Table(
        "Payments",
        (
            _payment("Payment", "text", 18, lambda row: row.external_id),
            _payment("Received at (UTC)", "moment", 20, lambda row: row.received_at),
            _payment("Method", "text", 15, lambda row: row.get_method_display()),
            _payment("Reference", "text", 30, lambda row: row.reference),
            _payment("Invoice", "text", 18, lambda row: row.invoice.number if row.invoice else None),
            _payment("Currency", "text", 9, lambda row: row.currency),
            _payment("Amount", "money", 14, lambda row: row.amount),
            _payment("Customer id", "integer", 11, lambda row: row.customer_id),
            _payment("Customer", "text", 26, lambda row: row.customer.name),
        ),
        shop.count_payments,
        shop.stream_payments,
    ),
    Dataset.CUSTOMERS: Table(
        "Customers",
        (
            _customer("Customer id", "integer", 11, lambda row: row.pk),
            _customer("Name", "text", 26, lambda row: row.name),
            _customer("Company", "text", 30, lambda row: row.company),
            _customer("E-mail", "text", 36, lambda row: row.email),
            _customer("Country", "text", 8, lambda row: row.country),
            _customer("Customer since (UTC)", "moment", 20, lambda row: row.created_at),
        ),
        shop.count_customers,
        shop.stream_customers,
    ),
}
