"""Every job that was sent, and how it stands."""

from __future__ import annotations

import datetime
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

ENDED = frozenset({"succeeded", "dead", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class SentJob:
    """One job.

    Args:
        app: Product app that does the work.
        kind: Which of the app's sample orders it belongs to.
        title: For people.
        sent_at: Monotonic clock, in seconds.
        body: What the API last said of it; empty before its first answer.
    """

    app: str
    kind: str
    title: str
    job_id: str
    sent_at: float = field(default_factory=time.monotonic)
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Where it is, as the API says; ``sent`` before it was asked for."""
        return str(self.body.get("state", "sent"))

    @property
    def reason(self) -> str:
        """Why it is scheduled or dead."""
        return str(self.body.get("reason") or "")

    @property
    def attempts(self) -> int:
        """Times it was started."""
        return int(self.body.get("attempts", 0))

    @property
    def has_ended(self) -> bool:
        """Nothing more happens to it by itself."""
        return self.state in ENDED

    @property
    def took_s(self) -> float | None:
        """Seconds from enqueueing to the end; ``None`` before that."""
        return self.seconds_between("enqueued_at", "finished_at")

    def seconds_between(self, first: str, second: str) -> float | None:
        """Return the seconds between two of its times; ``None`` where one has not happened."""
        start, end = self.body.get(first), self.body.get(second)
        if not start or not end:
            return None
        return (datetime.datetime.fromisoformat(end) - datetime.datetime.fromisoformat(start)).total_seconds()


class Journal:
    """Keeps the jobs of one run, in the order they were sent. Safe to share between threads."""

    def __init__(self) -> None:
        self._jobs: dict[str, SentJob] = {}
        self._lock = threading.Lock()

    def add(self, job: SentJob) -> None:
        """Note a job that was sent; the same id again changes nothing."""
        with self._lock:
            self._jobs.setdefault(job.job_id, job)

    def see(self, job_id: str, body: dict[str, Any]) -> tuple[SentJob, SentJob]:
        """Note what the API says of a job and return it as it was and as it is."""
        with self._lock:
            before = self._jobs[job_id]
            self._jobs[job_id] = replace(before, body=body)
            return before, self._jobs[job_id]

    def all(self) -> list[SentJob]:
        """Return every job."""
        with self._lock:
            return list(self._jobs.values())

    def of(self, kind: str) -> list[SentJob]:
        """Return the jobs of one kind."""
        return [job for job in self.all() if job.kind == kind]

    def unfinished(self) -> list[SentJob]:
        """Return the jobs that have not ended."""
        return [job for job in self.all() if not job.has_ended]
