"""Sends sample work to the API and notes every job."""

from __future__ import annotations

import http
import itertools
from dataclasses import dataclass, field
from typing import Any

from demo.client import Answer, Client
from demo.feed import Feed
from demo.sample.journal import Journal, SentJob


@dataclass
class Sender:
    """One run's sender.

    Args:
        run: Makes the run's idempotency keys its own.
    """

    client: Client
    journal: Journal
    feed: Feed
    run: str
    _numbers: Any = field(default_factory=itertools.count, init=False, repr=False)

    def submit(self, app: str, kind: str, title: str, path: str, **content: Any) -> str:
        """Send one request for a job and return the job's id.

        Args:
            content: ``body`` or ``fields``, see :meth:`Client.send`.

        Raises:
            RequestFailed: the API did not take it.
        """
        body = self.client.ask("POST", path, expect=http.HTTPStatus.ACCEPTED, key=self._key(), **content)
        return self.note(app, kind, title, body["job_id"])

    def event(self, kind: str, title: str, event: str, payload: dict[str, Any]) -> list[str]:
        """Send one webhook event and return the ids of its deliveries.

        Raises:
            RequestFailed: the API did not take it.
        """
        body = self.client.ask(
            "POST",
            "/api/v1/webhooks/events",
            expect=http.HTTPStatus.ACCEPTED,
            key=self._key(),
            body={"event": event, "payload": payload},
        )
        return [self.note("webhooks", kind, title, job_id) for job_id in body["job_ids"]]

    def attempt(self, method: str, path: str, **content: Any) -> Answer:
        """Send a request whose answer, a refusal too, is what matters."""
        return self.client.send(method, path, **content)

    def note(self, app: str, kind: str, title: str, job_id: str) -> str:
        """Follow a job that was sent."""
        self.journal.add(SentJob(app, kind, title, job_id))
        return job_id

    def _key(self) -> str:
        return f"demo-{self.run}-{next(self._numbers)}"
