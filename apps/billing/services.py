"""Writes of billing: reconcile a month, receive a payment event, apply it. All are safe to repeat."""

import datetime
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Count, Q
from django.utils import timezone

from apps.billing.models import EventState, Outcome, PaymentEvent, Reconciliation, ReconciliationEntry
from apps.shop import months, settlement
from apps.shop import queries as shop
from apps.shop.models import Invoice, InvoiceStatus, Payment
from apps.shop.services import link_payments, record_payment, settle

Progress = Callable[[int, int, str], None]
BATCH_INVOICES = 500
_WRITTEN = ["expected", "paid", "outcome", "corrected_from", "corrected_at"]
_NAMESPACE = uuid.UUID("d0a0c0a5-5b0e-4b43-8d52-2f3a6bd0b7c1")


class EventDiffers(Exception):
    """An event has the id of a different event."""

    def __init__(self, external_id: str) -> None:
        super().__init__(f"webhook-id {external_id}: another event came with it before; send a new event with a new id")


def reconcile(month: str, progress: Progress, *, since: datetime.datetime | None = None) -> dict[str, int]:
    """Reconcile a month's invoices with the payments, batch by batch; a second run changes nothing.

    Each batch is one transaction: a run that is stopped keeps its batches, and the next run does the rest.

    Args:
        month: ``YYYY-MM``; one without invoices reconciles to zeros.
        progress: Called between batches with invoices done, their total, and a note. An exception stops the run.
        since: Count what was corrected from then on, by earlier runs of the same job as well; by default by this run.

    Returns:
        Numbers of invoices: ``matched``, ``unmatched``, and ``corrected``, whose status this job changed.

    Raises:
        ValueError: the month does not exist.
    """
    total = shop.month_invoices(month).count()
    reconciliation, _ = Reconciliation.objects.update_or_create(
        month=month, defaults={"started_at": timezone.now(), "finished_at": None}
    )
    done = corrected = after_id = 0
    progress(done, total, f"invoices of {month}")
    while (batch := _reconcile_batch(reconciliation, after_id))[0]:
        done, corrected, after_id = done + len(batch[0]), corrected + batch[1], batch[0][-1].pk
        progress(done, max(done, total), f"invoices of {month}")
    return _finish(reconciliation, corrected, since)


@transaction.atomic
def _reconcile_batch(reconciliation: Reconciliation, after_id: int) -> tuple[list[Invoice], int]:
    """Reconcile the month's next invoices by primary key; return them, and how many statuses were corrected.

    Payments without an invoice whose reference names one of the batch, of the same customer, are linked to it. Then
    each invoice's status is corrected by its payments. Only changed entries are written.
    """
    invoices = shop.invoices_after(reconciliation.month, after_id, BATCH_INVOICES)
    if not invoices:
        return [], 0
    paid = settlement.paid_amounts(invoices, [*shop.payments_for(invoices), *_link(invoices)])
    corrected_from = settle(invoices, paid)
    known = {entry.invoice_id: entry for entry in reconciliation.entries.filter(invoice__in=invoices)}
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
            entry.corrected_from, entry.corrected_at = corrected_from[invoice.pk], timezone.now()
        if before is None or any(getattr(entry, name) != getattr(before, name) for name in _WRITTEN):
            changed.append(entry)
    ReconciliationEntry.objects.bulk_create(
        changed, update_conflicts=True, unique_fields=["reconciliation", "invoice"], update_fields=_WRITTEN
    )
    return invoices, len(corrected_from)


def _link(invoices: Sequence[Invoice]) -> list[Payment]:
    wanted = {(invoice.customer_id, invoice.number): invoice.pk for invoice in invoices}
    links = {}
    strays = shop.unlinked_payments([*{invoice.customer_id for invoice in invoices}])
    for payment in strays:
        number = settlement.invoice_number(payment.reference)
        invoice_id = wanted.get((payment.customer_id, number)) if number else None
        if invoice_id is not None:
            links[payment.pk] = invoice_id
    return link_payments(strays, links)


def outcome_of(expected: Decimal, paid: Decimal) -> Outcome:
    if paid == expected:
        return Outcome.MATCHED
    if paid > expected:
        return Outcome.OVERPAID
    return Outcome.UNDERPAID if paid > settlement.ZERO else Outcome.MISSING


def receive_event(external_id: str, payload: dict[str, Any]) -> tuple[PaymentEvent, bool]:
    """Store a payment event; return it and whether it has to be enqueued.

    A known event has to be enqueued when its first enqueue failed, because the broker was down.

    Raises:
        EventDiffers: a different event has that id.
    """
    event, _ = PaymentEvent.objects.get_or_create(external_id=external_id, defaults={"payload": payload})
    if event.payload != payload:
        raise EventDiffers(external_id)
    return event, event.state == EventState.RECEIVED and event.job_id == ""


def job_id_of(event: PaymentEvent) -> str:
    """Return the id of the job that applies an event, the same whenever its sender repeats it."""
    return str(uuid.uuid5(_NAMESPACE, f"{event.pk} {event.external_id}"))


def note_job(event: PaymentEvent, job_id: str) -> None:
    PaymentEvent.objects.filter(pk=event.pk).update(job_id=job_id)


@transaction.atomic
def apply_event(event_id: int) -> EventState | None:
    """Record the payment of an event and update its invoice, once; return its state, ``None`` for no such event."""
    event = PaymentEvent.objects.select_for_update().filter(pk=event_id).first()
    if event is None:
        return None
    if event.state == EventState.APPLIED:
        return EventState.APPLIED
    data = event.payload["data"]
    named = data["invoice_number"] or settlement.invoice_number(data["reference"])
    invoice = shop.invoice_numbered(named) if named else None
    if invoice is None:
        event.state = EventState.UNPLACED
    else:
        event.payment = record_payment(
            external_id=data["id"],
            invoice=invoice,
            amount=Decimal(data["amount"]),
            currency=data["currency"],
            reference=data["reference"],
            received_at=datetime.datetime.fromisoformat(data["paid_at"]),
        )
        event.state = EventState.APPLIED
        event.applied_at = timezone.now()
    event.save(update_fields=["state", "payment", "applied_at"])
    return EventState(event.state)


@transaction.atomic
def _finish(reconciliation: Reconciliation, corrected: int, since: datetime.datetime | None) -> dict[str, int]:
    first, after = months.bounds(reconciliation.month)
    # Entries of invoices that have moved to another month since.
    reconciliation.entries.exclude(invoice__issued_on__gte=first, invoice__issued_on__lt=after).delete()
    matched = Q(outcome=Outcome.MATCHED)
    counts = reconciliation.entries.aggregate(
        matched=Count("id", filter=matched),
        unmatched=Count("id", filter=~matched),
        corrected=Count("id", filter=~Q(corrected_from="")),
    )
    for name, count in counts.items():
        setattr(reconciliation, name, count)
    reconciliation.finished_at = timezone.now()
    reconciliation.save(update_fields=["matched", "unmatched", "corrected", "finished_at"])
    if since is not None:
        corrected = reconciliation.entries.filter(corrected_at__gte=since).count()
    return {"matched": counts["matched"], "unmatched": counts["unmatched"], "corrected": corrected}
