"""Options of Celery that ``switchyard.compat.celery`` does not have, and what to write instead of each."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from switchyard.middleware.errors import UnknownOption

DELAYS: Final = (
    "write default_retry_delay and max_retries, or declare @dramatiq.actor(min_backoff=..., max_backoff=...)"
)
INSTEAD: Final = {
    "acks_late": "leave it out: a job is acknowledged at its end",
    "base": "call from the task what its class does",
    "expires": "declare @dramatiq.actor(max_age=...), in milliseconds",
    "link": "declare @dramatiq.actor(on_success=...)",
    "link_error": "declare @dramatiq.actor(on_failure=...)",
    "priority": "declare @dramatiq.actor(priority=...), a lower one goes first",
    "rate_limit": "declare @dramatiq.actor(rate_limit=...), which counts over all workers",
    "reject_on_worker_lost": "leave it out: a job whose worker is lost runs again",
    "serializer": "leave it out: arguments are JSON",
    "soft_time_limit": "declare @dramatiq.actor(time_limit=...), in milliseconds",
    "task_id": "call switchyard.jobs.services.submit(task, ..., job_id=...)",
    "throws": "declare @dramatiq.actor(throws=...)",
    "time_limit": "declare @dramatiq.actor(time_limit=...), in milliseconds",
    **dict.fromkeys(("retry_backoff", "retry_backoff_max", "retry_jitter", "retry_kwargs"), DELAYS),
}
OTHERS: Final = "leave it out, or declare @dramatiq.actor with an option of its own"


def refuse(task: str, given: Collection[str]) -> None:
    """Refuse the options that are left of what a task or a call was given.

    Raises:
        UnknownOption: there are any.
    """
    if given:
        remedies = "; ".join(f"{name!r}: {INSTEAD.get(name, OTHERS)}" for name in given)
        raise UnknownOption(f"task {task}: unknown option of switchyard.compat.celery {remedies}")
