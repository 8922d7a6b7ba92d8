"""Actors of the exports product."""

from typing import Any

import dramatiq

from apps.exports import services
from apps.exports.datasets import TABLES
from switchyard.batches.services import batch, current_batch
from switchyard.jobs.services import current_job_id


@dramatiq.actor(queue_name="slow", store_results=True, schedulable=True)
def export_dataset(dataset: str, format: str) -> dict[str, Any]:
    """Export ``invoices``, ``payments`` or ``customers`` as ``csv`` or ``xlsx``.

    Safe to repeat: a stored file is returned again.
    """
    return services.export(dataset, format, job_id=current_job_id())


@dramatiq.actor(queue_name="default", store_results=True, schedulable=True)
def export_everything(format: str) -> dict[str, str]:
    """Export every dataset as ``csv`` or ``xlsx``, as one batch. Safe to repeat: it goes on with the same batch."""
    done = exported_everything.message(format)
    with batch(f"every dataset as {format}", tags=("exports",), on_complete=done) as exports:
        exports.add(*(export_dataset.message(dataset, format) for dataset in TABLES))
    return {"batch": exports.id}


@dramatiq.actor(queue_name="default", store_results=True)
def exported_everything(format: str) -> dict[str, int]:
    """Tell how many datasets were exported, and how many were not. Safe to repeat: it only counts."""
    exports = current_batch()
    found = exports.progress() if exports is not None else None
    return {"exported": found.done if found else 0, "failed": found.failed if found else 0}
