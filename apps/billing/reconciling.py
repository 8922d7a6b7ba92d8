"""Reconciliation of one batch of invoices with their payments, through the shop's queries and services."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from apps.billing.models import Outcome, Reconciliation, ReconciliationEntry
from apps.shop import queries, services, settlement
from apps.shop.models import Invoice, InvoiceStatus, Payment

BATCH_INVOICES = 500
_WRITTEN = ["expected", "paid", "outcome", "corrected_from", "corrected_at"]


@transaction.atomic
def reconcile_batch(reconciliation: Reconciliation, after_id: int) -> tuple[list[Invoice], int]:
    """Reconcile the month's next invoices by primary key; return them, and how many statuses were corrected.

    Payments without an invoice whose reference names one of the batch, of the same customer, are linked to it. Then
    each invoice's status is corrected by its payments. Only changed entries are written.
    """
    invoices = queries.invoices_after(reconciliation.month, after_id, BATCH_INVOICES)
    if not invoices:
        return [], 0
    payments = [*queries.payments_for(invoices), *_link(invoices)]
    paid = settlement.paid_amounts(invoices, payments)
    corrected_from = services.settle(invoices, paid)
    _upsert(reconciliation, invoices, paid, corrected_from)
    return invoices, len(corrected_from)


def outcome_of(expected: Decimal, paid: Decimal) -> Outcome:
    if paid == expected:
        return Outcome.MATCHED
    if paid > expected:
        return Outcome.OVERPAID
    return Outcome.UNDERPAID if paid > settlement.ZERO else Outcome.MISSING


def _link(invoices: Sequence[Invoice]) -> list[Payment]:
    wanted = {(invoice.customer_id, invoice.number): invoice.pk for invoice in invoices}
    links = {}
    strays = queries.unlinked_payments([*{invoice.customer_id for invoice in invoices}])
    for payment in strays:
        number = settlement.invoice_number(payment.reference)
        invoice_id = wanted.get((payment.customer_id, number)) if number else None
        if invoice_id is not None:
            links[payment.pk] = invoice_id
    return services.link_payments(strays, links)


def _upsert(
    reconciliation: Reconciliation,
    invoices: Sequence[Invoice],
    paid: dict[int, Decimal],
    corrected_from: dict[int, str],
) -> None:
    known = {entry.invoice_id: entry for entry in reconciliation.entries.filter(invoice__in=invoices)}
    now = timezone.now()
    changed = []
    for invoice in invoices:
        before = known.get(invoice.pk)
        expected = settlement.ZERO if invoice.status == InvoiceStatus.VOID else invoice.total
        entry = ReconciliationEntry(
            reconciliation=reconciliation,
            invoice=invoice,
            expected=expected,
            paid=paid[invoice.pk],
            outcome=outcome_of(expected, paid[invoice.pk]),
            corrected_from=before.corrected_from if before else "",
            corrected_at=before.corrected_at if before else None,
        )
        if invoice.pk in corrected_from:
            entry.corrected_from, entry.corrected_at = corrected_from[invoice.pk], now
        if before is None or any(getattr(entry, name) != getattr(before, name) for name in _WRITTEN):
            changed.append(entry)
    ReconciliationEntry.objects.bulk_create(
        changed, update_conflicts=True, unique_fields=["reconciliation", "invoice"], update_fields=_WRITTEN
    )
