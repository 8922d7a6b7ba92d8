"""Jobs of one POST: ids that a repetition of the request finds again, and whether they may have reached the broker."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from switchyard.broker.errors import BrokerError, BrokerUnavailable

_NAMESPACE = uuid.UUID("6f1cc1a0-90c5-4a0b-9c5f-0a1f6b0d7f53")

NOT_ENQUEUED, UNKNOWN = "not_enqueued", "unknown"


class HistoryUnavailable(BrokerUnavailable):
    """Whether a job was enqueued before is in the database alone, which did not answer; nothing was enqueued now."""

    def __init__(self, job_id: str, cause: str) -> None:
        self.operation, self.cause, self.outcome = "find", cause, "unknown"
        self.remedy = "check that the database is up and migrated, then repeat it with the same id or Idempotency-Key"
        fact = f"job {job_id} is not enqueued, as the database did not answer whether it ran before: {cause}"
        BrokerError.__init__(self, f"{fact}; {self.remedy}")


@dataclass(slots=True)
class RequestJobs:
    """Jobs that a request enqueues, in order.

    Args:
        has_key: The request has an ``Idempotency-Key``.
        claim: Text that is the same for every run of a request under one claim of its key; empty without a claim.
        repeated: An earlier run under the same claim began: it may have written rows and enqueued jobs.
        in_doubt: A job may have been enqueued although no run received the broker's answer.
        safe_to_repeat: The jobs' ids do not depend on a key.
        refused_before_work: The request was refused before it wrote anything: its key is free again.
    """

    has_key: bool = False
    claim: str = ""
    repeated: bool = False
    in_doubt: bool = False
    safe_to_repeat: bool = False
    refused_before_work: bool = False
    job_ids: list[str] = field(default_factory=list)
    _ids_given: int = 0

    def next_job_id(self) -> str | None:
        """Return the id of the request's next job, the same in every run; ``None`` without a claimed key."""
        if not self.claim:
            return None
        self._ids_given += 1
        return str(uuid.uuid5(_NAMESPACE, f"{self.claim} job {self._ids_given}"))

    def note_failure(self, job_id: str, outcome: str) -> None:
        """Note a job whose enqueueing failed, with the ``outcome`` of the broker's error."""
        if outcome == UNKNOWN:
            self.in_doubt = True
            self.job_ids.append(job_id)

    @property
    def outcome(self) -> str:
        """Outcome after a failure: ``not_enqueued``, or ``unknown`` when some job is or may be enqueued."""
        unread_claim = self.has_key and not self.claim
        return UNKNOWN if self.in_doubt or self.job_ids or unread_claim else NOT_ENQUEUED


_current: ContextVar[RequestJobs | None] = ContextVar("switchyard_request_jobs", default=None)


def current_request() -> RequestJobs | None:
    """Return the jobs of the POST that runs this code, ``None`` elsewhere."""
    return _current.get()


@contextmanager
def request_jobs(jobs: RequestJobs) -> Iterator[RequestJobs]:
    """Note the jobs that the block enqueues."""
    token = _current.set(jobs)
    try:
        yield jobs
    finally:
        _current.reset(token)


def row_id_of_request(kind: str) -> uuid.UUID | None:
    """Return the id for the row of a kind, such as ``picture``, that the current request writes, also when repeated.

    ``None`` without an ``Idempotency-Key``: nothing recognises a repetition then.
    """
    jobs = current_request()
    return uuid.uuid5(_NAMESPACE, f"{jobs.claim} row {kind}") if jobs is not None and jobs.claim else None


def is_repeated_request() -> bool:
    """Return whether an earlier run of the current request may have written its rows."""
    jobs = current_request()
    return jobs is not None and jobs.repeated
