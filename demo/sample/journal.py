"""Sent jobs and their last known state, answers without a job, and the sender that records both."""

from __future__ import annotations

import datetime
import http
import itertools
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

from demo.client import Client

ENDED = frozenset({"succeeded", "dead", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class SentJob:
    """One job.

    Args:
        app: Product app that does the work.
        kind: Sample order it belongs to.
        title: Name of the job in lines of the demo.
        sent_at: Monotonic clock, in seconds.
        body: Last answer of ``GET /api/v1/jobs/{id}``; empty before the first.
    """

    app: str
    kind: str
    title: str
    job_id: str
    sent_at: float = field(default_factory=time.monotonic)
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """State as the API names it; ``sent`` before its first answer."""
        return str(self.body.get("state", "sent"))

    @property
    def reason(self) -> str:
        """Reason why the job is scheduled or dead."""
        return str(self.body.get("reason") or "")

    @property
    def attempts(self) -> int:
        """Number of times the job was started."""
        return int(self.body.get("attempts", 0))

    @property
    def has_ended(self) -> bool:
        """Whether the job's state is final."""
        return self.state in ENDED

    @property
    def took_s(self) -> float | None:
        """Seconds from enqueueing to the end; ``None`` before that."""
        return self.seconds_between("enqueued_at", "finished_at")

    def seconds_between(self, first: str, second: str) -> float | None:
        """Return the seconds between two times of the job; ``None`` while one of them is missing."""
        start, end = self.body.get(first), self.body.get(second)
        if not start or not end:
            return None
        return (datetime.datetime.fromisoformat(end) - datetime.datetime.fromisoformat(start)).total_seconds()


class Journal:
    """Jobs of one run, in the order they were sent. Safe to share between threads."""

    def __init__(self) -> None:
        self._jobs: dict[str, SentJob] = {}
        self._lock = threading.Lock()

    def add(self, job: SentJob) -> None:
        """Add a job that was sent; an id that is already there changes nothing."""
        with self._lock:
            self._jobs.setdefault(job.job_id, job)

    def update(self, job_id: str, body: dict[str, Any]) -> tuple[SentJob, SentJob]:
        """Store the API's answer for a job and return the job before and after it."""
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


@dataclass
class Answers:
    """HTTP statuses of requests that make no job; 0 before the request was sent.

    Args:
        payment_id: The provider's id of the payment in the signed event.
        payment: Statuses of the signed event, one for each time it was sent.
        forged: Status of the event that was signed with another secret.
        private_url: Status of the request for a picture on a private address.
    """

    payment_id: str
    payment: list[int] = field(default_factory=list)
    forged: int = 0
    private_url: int = 0

    @property
    def forged_payment_id(self) -> str:
        """Id of the payment in the forged event."""
        return f"{self.payment_id}_forged"


@dataclass
class Sender:
    """Sender of one run's sample work, which adds every job to the journal.

    Args:
        run: Prefix of the run's idempotency keys.
    """

    client: Client
    journal: Journal
    run: str
    _numbers: Any = field(default_factory=itertools.count, init=False, repr=False)

    def submit(self, app: str, kind: str, title: str, path: str, **content: Any) -> str:
        """Send one request for a job and return the job's id.

        Args:
            content: ``body`` or ``fields``, see :meth:`Client.send`.

        Raises:
            RequestFailed: the API refused it.
        """
        body = self.client.ask("POST", path, expect=http.HTTPStatus.ACCEPTED, key=self._key(), **content)
        return self.follow(app, kind, title, body["job_id"])

    def publish(self, kind: str, title: str, event: str, payload: dict[str, Any]) -> list[str]:
        """Send one webhook event and return the job ids of its deliveries.

        Raises:
            RequestFailed: the API refused it.
        """
        body = self.client.ask(
            "POST",
            "/api/v1/webhooks/events",
            expect=http.HTTPStatus.ACCEPTED,
            key=self._key(),
            body={"event": event, "payload": payload},
        )
        return [self.follow("webhooks", kind, title, job_id) for job_id in body["job_ids"]]

    def follow(self, app: str, kind: str, title: str, job_id: str) -> str:
        """Add a job to the journal and return its id."""
        self.journal.add(SentJob(app, kind, title, job_id))
        return job_id

    def _key(self) -> str:
        return f"demo-{self.run}-{next(self._numbers)}"
