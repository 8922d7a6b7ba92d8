"""Ask for an export. The job that writes it runs later, in a worker."""

from __future__ import annotations

from apps.platform.jobs.services import enqueue_on_commit, submit
from apps.product.exports.actors import export_dataset


def request_export(dataset: str, file_format: str, *, owner: str = "") -> str:
    """Enqueue an export at once and return its job id.

    Raises:
        BrokerUnavailable: the broker did not take the job.
    """
    return submit(export_dataset, owner=owner, kwargs={"dataset": dataset, "format": file_format})


def request_export_on_commit(dataset: str, file_format: str) -> str:
    """Enqueue an export when the running transaction commits, and return the id its job has."""
    return enqueue_on_commit(export_dataset, kwargs={"dataset": dataset, "format": file_format})
