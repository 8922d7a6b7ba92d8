"""Actors of the reports product."""

from typing import Any

import dramatiq

from apps.reports import services
from switchyard.jobs.services import current_job_sent_at


@dramatiq.actor(queue_name="slow", store_results=True, search=("customer_id",), public=True)
def generate_report(customer_id: int, month: str) -> dict[str, Any]:
    """Make a customer's statement of one month (``YYYY-MM``) as PDF. Safe to repeat: an unchanged one is kept."""
    return services.generate(customer_id, month, since=current_job_sent_at())
