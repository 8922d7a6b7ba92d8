"""Writes of billing: reconcile a month, take in a payment event, apply it. Each may run twice."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.product.billing import queries
from apps.product.billing.models import EventState, PaymentEvent, Reconciliation
from apps.product.billing.reconciling import reconcile_batch
from apps.product.shop import months
from apps.product.shop import queries as shop
from apps.product.shop.services import record_payment

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How a month stands after a run.

    Args:
        corrected: Invoices whose status this very run changed; 0 when nothing came in since the last.
    """

    matched: int
    unmatched: int
    corrected: int


class EventDiffers(Exception):
    """An event came again under the id of another one."""

    def __init__(self, external_id: str) -> None:
        super().__init__(f"webhook-id {external_id}: another event came with it before; send a new event with a new id")


def reconcile(month: str, progress: Progress) -> Reconciled:
    """Hold a month's invoices against the payments, batch by batch; a second run changes nothing.

    Each batch is a transaction of its own: stopped in between, what was done stays, and the next run does the rest.

    Args:
        month: ``YYYY-MM``; one without invoices reconciles to zeros.
        progress: Called between batches with invoices done, invoices in all, and a note. What it raises stops the run.

    Raises:
        ValueError: no calendar has that month.
    """
    total = shop.count_invoices(month)
    reconciliation, _ = Reconciliation.objects.update_or_create(
        month=month, defaults={"started_at": timezone.now(), "finished_at": None}
    )
    done = corrected = after_id = 0
    progress(done, total, f"invoices of {month}")
    while (batch := reconcile_batch(reconciliation, after_id)) is not None:
        done, corrected, after_id = done + batch.invoices, corrected + batch.corrected, batch.last_id
        progress(done, max(done, total), f"invoices of {month}")
    return _finish(reconciliation, corrected)


def receive_event(external_id: str, payload: dict[str, Any]) -> tuple[PaymentEvent, bool]:
    """Keep a payment event, and return it and whether it still has to be enqueued.

    An event that came before but was never enqueued, because the broker was down, has to be.

    Raises:
        EventDiffers: another event came with that id.
    """
    event, _ = PaymentEvent.objects.get_or_create(external_id=external_id, defaults={"payload": payload})
    if event.payload != payload:
        raise EventDiffers(external_id)
    return event, event.state == EventState.RECEIVED and event.job_id == ""


def note_job(event: PaymentEvent, job_id: str) -> None:
    """Keep the id of the job that applies an event."""
    PaymentEvent.objects.filter(pk=event.pk).update(job_id=job_id)


@transaction.atomic
def apply_event(event_id: int) -> EventState | None:
    """Record the payment an event tells of and bring its invoice up to date, once, however often it is called.

    Returns:
        Where the event stands; ``None`` when there is no such event.
    """
    event = PaymentEvent.objects.select_for_update().filter(pk=event_id).first()
    if event is None:
        return None
    if event.state == EventState.APPLIED:
        return EventState.APPLIED
    data = event.payload["data"]
    invoice = queries.invoice_meant(data["invoice_number"], data["reference"])
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
def _finish(reconciliation: Reconciliation, corrected: int) -> Reconciled:
    first, after = months.bounds(reconciliation.month)
    # Entries of invoices that were moved to another month since.
    reconciliation.entries.exclude(invoice__issued_on__gte=first, invoice__issued_on__lt=after).delete()
    counts = queries.count_entries(reconciliation)
    reconciliation.matched, reconciliation.unmatched, reconciliation.corrected = counts
    reconciliation.finished_at = timezone.now()
    reconciliation.save(update_fields=["matched", "unmatched", "corrected", "finished_at"])
    return Reconciled(counts.matched, counts.unmatched, corrected)
