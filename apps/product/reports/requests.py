"""Ask for a statement. The job that makes it runs later, in a worker."""

from __future__ import annotations

import datetime

from apps.platform.jobs.services import enqueue_on_commit, submit
from apps.product.reports.actors import generate_report
from apps.product.shop import months


def request_report(customer_id: int, month: str, *, owner: str = "") -> str:
    """Enqueue a statement at once and return its job id.

    Raises:
        BrokerUnavailable: the broker did not take the job.
    """
    return submit(generate_report, owner=owner, kwargs={"customer_id": customer_id, "month": month})


def request_report_on_commit(customer_id: int, month: str) -> str:
    """Enqueue a statement when the running transaction commits, and return the id its job has."""
    return enqueue_on_commit(generate_report, kwargs={"customer_id": customer_id, "month": month})


def has_begun(month: str, today: datetime.date) -> bool:
    """Return whether a month has begun on a day; the running month has, so its statement says what is known so far."""
    return months.first_day(month) <= today
