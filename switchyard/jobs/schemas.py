"""Bodies of the API's answers about jobs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

State = Literal["scheduled", "queued", "running", "retrying", "succeeded", "cancelled", "expired", "dead"]


class JobProgress(BaseModel):
    """Progress of a job: steps done, steps in all, and the current step."""

    done: int
    total: int
    note: str


class JobFailure(BaseModel):
    """Why the last attempt failed."""

    type: str
    message: str


class JobBody(BaseModel):
    """Current state of a job. Times are ISO 8601 in UTC with microseconds; null for steps not reached."""

    id: str
    actor: str
    queue: str
    state: State
    reason: str | None
    attempts: int
    progress: JobProgress | None
    enqueued_at: str | None
    started_at: str | None
    finished_at: str | None
    result: Any
    result_url: str | None
    error: JobFailure | None
    next_attempt_at: str | None


class JobItem(BaseModel):
    """A job in the list. Times are ISO 8601 in UTC; null for what is not known or has not happened."""

    id: str
    state: State
    actor: str
    queue: str
    owner: str
    tags: list[str]
    attempts: int
    reason: str | None
    error: str | None
    fingerprint: str | None
    enqueued_at: str | None
    due_at: str | None
    started_at: str | None
    finished_at: str | None
    wait_ms: int | None
    run_ms: int | None
    worker: str | None
    release: str | None
    parent: str | None
    progress: JobProgress | None
    arguments: dict[str, Any] | None


class JobList(BaseModel):
    """A page of the list of jobs.

    ``after`` is the cursor of the next page, null at the end. ``cut`` names the queues that hold more messages than the
    10,000 that are looked through, ``away`` those on a server that does not answer: their jobs that have not
    ended are missing.
    """

    jobs: list[JobItem]
    after: str | None
    cut: list[str]
    away: list[str]
