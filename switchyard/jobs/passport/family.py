"""Jobs that a job sent: those that run now, and those of the history."""

from __future__ import annotations

from dataclasses import dataclass

from switchyard.broker.errors import BrokerError
from switchyard.jobs.passport.reading import Passport
from switchyard.jobs.running import running_jobs


@dataclass(frozen=True, slots=True)
class ChildJob:
    """A job that another one sent.

    Args:
        ran_ms: Time for which it ran, or runs.
    """

    id: str
    actor: str
    state: str
    ran_ms: int | None


@dataclass(frozen=True, slots=True)
class JobFamily:
    """Children of a job; those that wait for their first start are not among them: no index of the broker finds them.

    Args:
        shown: Those that run, the longest first; then those that ended or are retried, the newest first.
        broker_away: Those that run are missing, because the broker did not answer.
    """

    shown: tuple[ChildJob, ...]
    broker_away: bool


def children_of(job: Passport) -> JobFamily:
    """Return the children of a job; at most four round trips to the broker, and the rows that the passport has."""
    away = False
    try:
        running = [ChildJob(each.id, each.actor, "running", each.ran_ms) for each in running_jobs(parent=job.id)]
    except BrokerError:
        running, away = [], True
    ids = {each.id for each in running}
    stored = [ChildJob(row.job_id, row.actor, row.state, row.run_ms) for row in job.children if row.job_id not in ids]
    return JobFamily((*running, *stored), away)
