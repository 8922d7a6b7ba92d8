"""Writes of the shop, one transaction per function. All are safe to repeat."""

import datetime
from collections.abc import Iterable, Mapping
from decimal import Decimal

from django.db import transaction

from apps.shop import queries, settlement
from apps.shop.models import Invoice, InvoiceStatus, Payment, PaymentMethod


@transaction.atomic
def record_payment(
    *,
    external_id: str,
    invoice: Invoice,
    amount: Decimal,
    currency: str,
    received_at: datetime.datetime,
    reference: str = "",
) -> Payment:
    """Insert or update the payment of that external id and update its invoice's status.

    A payment that was linked to another invoice moves, and both invoices are updated.
    """
    before = Payment.objects.filter(external_id=external_id).values_list("invoice_id", flat=True)
    touched = {invoice.pk, *(pk for pk in before if pk is not None)}
    # Lock by primary key, as a reconciliation does, to rule out a deadlock of the two.
    invoices = list(Invoice.objects.filter(pk__in=touched).order_by("pk").select_for_update())
    payment, _ = Payment.objects.update_or_create(
        external_id=external_id,
        defaults={
            "customer_id": invoice.customer_id,
            "invoice": invoice,
            "reference": reference,
            "amount": amount,
            "currency": currency,
            "method": PaymentMethod.TRANSFER,
            "received_at": received_at,
        },
    )
    settle(invoices, settlement.paid_amounts(invoices, queries.payments_for(invoices)))
    return payment


@transaction.atomic
def link_payments(payments: Iterable[Payment], invoice_ids: Mapping[int, int]) -> list[Payment]:
    """Link payments to their invoices, by id -> id, and return those that were linked; others stay unchanged."""
    linked = [payment for payment in payments if payment.pk in invoice_ids]
    for payment in linked:
        payment.invoice_id = invoice_ids[payment.pk]
    Payment.objects.bulk_update(linked, ["invoice"])
    return linked


@transaction.atomic
def settle(invoices: Iterable[Invoice], paid: Mapping[int, Decimal]) -> dict[int, str]:
    """Correct the status of invoices by what was paid, by id; return the former status of those that were wrong, by id.

    A void invoice stays void.
    """
    before, wrong = {}, []
    for invoice in invoices:
        status = settlement.status_for(invoice.total, paid[invoice.pk])
        if invoice.status not in (status, InvoiceStatus.VOID):
            before[invoice.pk], invoice.status = invoice.status, status
            wrong.append(invoice)
    Invoice.objects.bulk_update(wrong, ["status"])
    return before
