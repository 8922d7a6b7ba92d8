"""Actors of billing."""

import dramatiq
from django.utils import timezone
from periodiq import cron

from apps.billing import services
from apps.shop import months
from switchyard.jobs.services import current_job_sent_at, report_progress
from switchyard.limits import lock
from switchyard.middleware.errors import PermanentFailure


@dramatiq.actor(queue_name="billing", store_results=True, permanent=(ValueError,), search=("month",))
def reconcile_month(month: str) -> dict[str, int]:
    """Reconcile a month's invoices with their payments. Safe to repeat: a second run changes nothing."""
    return _reconcile(month)


@dramatiq.actor(queue_name="billing", store_results=True, periodic=cron("15 2 * * *"))
def reconcile_current_month() -> dict[str, dict[str, int]]:
    """Reconcile the current month and the last, whose payments still arrive. Safe to repeat, like the above."""
    running = timezone.now().date().replace(day=1)
    return {
        month: _reconcile(month) for month in (months.month_of(months.later(running, -1)), months.month_of(running))
    }


def _reconcile(month: str) -> dict[str, int]:
    """Reconcile a month beside no other run of it, whichever actor's."""
    with lock(f"reconcile {month}"):
        return services.reconcile(month, report_progress, since=current_job_sent_at())


@dramatiq.actor(queue_name="urgent", search=("event_id",))
def apply_payment_event(event_id: int) -> None:
    """Record the payment of an inbound event. Safe to repeat: an event is applied once."""
    if services.apply_event(event_id) is None:
        raise PermanentFailure(f"payment event {event_id}: does not exist; it was deleted, discard this job")
