"""Writes of the shop, one transaction per function. All are safe to repeat."""

from __future__ import annotations

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
    method: PaymentMethod = PaymentMethod.TRANSFER,
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
            "method": method,
            "received_at": received_at,
        },
    )
    payments = queries.payments_for(invoices)
    wanted = {
        found.pk: settlement.status_for(found.total, settlement.paid_amount(found, payments))
        for found in invoices
        if found.status != InvoiceStatus.VOID
    }
    correct_statuses(invoices, wanted)
    return payment


@transaction.atomic
def link_payments(payments: Iterable[Payment], invoice_ids: Mapping[int, int]) -> int:
    """Link payments to their invoices and return how many were linked.

    Args:
        invoice_ids: Payment id -> invoice id; other payments stay unchanged.
    """
    linked = [payment for payment in payments if payment.pk in invoice_ids]
    for payment in linked:
        payment.invoice_id = invoice_ids[payment.pk]
    return Payment.objects.bulk_update(linked, ["invoice"])


@transaction.atomic
def correct_statuses(invoices: Iterable[Invoice], wanted: Mapping[int, InvoiceStatus]) -> int:
    """Correct the status of invoices and return how many were wrong.

    Args:
        wanted: Invoice id -> status; other invoices stay unchanged.
    """
    wrong = [invoice for invoice in invoices if wanted.get(invoice.pk, invoice.status) != invoice.status]
    for invoice in wrong:
        invoice.status = wanted[invoice.pk]
    return Invoice.objects.bulk_update(wrong, ["status"])
