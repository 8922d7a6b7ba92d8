"""Customers, invoices and payments as tests need them."""

import datetime
import itertools
from decimal import Decimal

from apps.shop.models import Customer, Invoice, InvoiceLine, InvoiceStatus, Payment

_serial = itertools.count(1)


def make_customer(**values) -> Customer:
    serial = next(_serial)
    given = {"name": f"Customer {serial}", "email": f"customer.{serial}@mail.example", "country": "DE", **values}
    return Customer.objects.create(**given)


def make_invoice(
    customer: Customer | None = None, *, total: str = "100.00", issued_on: str = "2026-10-15",
    status: InvoiceStatus = InvoiceStatus.OPEN, **values,
) -> Invoice:  # fmt: skip
    day = datetime.date.fromisoformat(issued_on)
    given = {
        "number": f"INV-{day.year}-{next(_serial):06d}", "customer": customer or make_customer(), "issued_on": day,
        "due_on": day + datetime.timedelta(days=14), "total": Decimal(total), "status": status, **values,
    }  # fmt: skip
    invoice = Invoice.objects.create(**given)
    InvoiceLine.objects.create(invoice=invoice, description="Consulting, hour", quantity=1, unit_price=invoice.total)
    return invoice


def make_payment(
    invoice: Invoice | None = None, *, customer: Customer | None = None, amount: str = "100.00",
    received_at: str = "2026-10-20T12:00:00+00:00", **values,
) -> Payment:  # fmt: skip
    given = {
        "external_id": f"pay_test_{next(_serial)}",
        "customer": customer or (invoice.customer if invoice else make_customer()),
        "invoice": invoice,
        "amount": Decimal(amount),
        "received_at": datetime.datetime.fromisoformat(received_at),
        **values,
    }
    return Payment.objects.create(**given)
