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
