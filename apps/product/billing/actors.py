"""Billing's background work."""

from __future__ import annotations

import dataclasses

import dramatiq
from django.utils import timezone
from periodiq import cron

from apps.platform.jobs.services import report_progress
from apps.product.billing import services
from apps.product.shop import months
from middleware.errors import PermanentFailure


@dramatiq.actor(queue_name="billing", store_results=True, permanent=(ValueError,))
def reconcile_month(month: str) -> dict[str, int]:
    """Hold a month's invoices against the payments. Safe to repeat: a second run changes nothing."""
    return dataclasses.asdict(services.reconcile(month, report_progress))


@dramatiq.actor(queue_name="billing", store_results=True, periodic=cron("15 2 * * *"))
def reconcile_current_month() -> dict[str, dict[str, int]]:
    """Reconcile the running month and the one before, whose payments still come in. Safe to repeat."""
    running = timezone.now().date().replace(day=1)
    return {
        month: dataclasses.asdict(services.reconcile(month, report_progress))
        for month in (months.month_of(months.later(running, -1)), months.month_of(running))
    }


@dramatiq.actor(queue_name="urgent")
def apply_payment_event(event_id: int) -> None:
    """Record the payment an inbound event tells of. Safe to repeat: an event is applied once."""
    if services.apply_event(event_id) is None:
        raise PermanentFailure(f"payment event {event_id}: does not exist; it was deleted, discard this job")
