"""Actors of the exports product."""

from __future__ import annotations

from typing import Any

import dramatiq

from apps.exports import services
from switchyard.jobs.services import current_job_id


@dramatiq.actor(queue_name="slow", store_results=True, schedulable=True)
def export_dataset(dataset: str, format: str) -> dict[str, Any]:
    """Export ``invoices``, ``payments`` or ``customers`` as ``csv`` or ``xlsx``.

    Safe to repeat: a stored file is returned again.
    """
    return services.export(dataset, format, job_id=current_job_id())
