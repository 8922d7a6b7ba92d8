"""Evidence of the sample work's outcomes: API answers, the mailbox, the receiver's log, the database."""

from __future__ import annotations

import contextlib
import email
import email.policy
import http
import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from demo.client import Client, RequestFailed
from demo.sample.journal import Answers, Journal, SentJob
from demo.state import StateFolder


@dataclass(frozen=True, slots=True)
class KeptMail:
    """One mail of the mailbox. ``message_id`` has no angle brackets."""

    to: str
    subject: str
    message_id: str


class Evidence:
    """Snapshot of all sources, cached on first use. Make a new one for each poll.

    Args:
        receiver: Root of the webhook receiver, without a slash at the end.
        files: Cache of result files by job id; files fetched now are added.
    """

    def __init__(
        self,
        journal: Journal,
        answers: Answers,
        client: Client,
        state: StateFolder,
        receiver: str,
        files: dict[str, bytes],
    ) -> None:
        self.answers = answers
        self.receiver = receiver
        self._journal = journal
        self._client = client
        self._state = state
        self._files = files

    def jobs(self, kind: str) -> list[SentJob]:
        """Return the sample jobs of one kind."""
        return self._journal.of(kind)

    @cached_property
    def mails(self) -> list[KeptMail]:
        """Mails in the sink's mailbox."""
        return [_read_mail(path.read_bytes()) for path in sorted((self._state.mailbox / "new").glob("*.eml"))]

    def arrived(self, path: str) -> list[dict[str, Any]]:
        """Return the requests that one path of the receiver answered, oldest first."""
        return [entry for entry in self._deliveries if entry["path"] == path]

    @cached_property
    def _deliveries(self) -> list[dict[str, Any]]:
        try:
            lines = self._state.deliveries.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def file_of(self, job: SentJob) -> bytes:
        """Return a job's result file; empty while there is none."""
        url = job.body.get("result_url")
        if job.job_id not in self._files and url:
            with contextlib.suppress(RequestFailed):
                answer = self._client.send("GET", url)
                if answer.status == http.HTTPStatus.OK:
                    self._files[job.job_id] = answer.body
        return self._files.get(job.job_id, b"")

    def text_of(self, path: str) -> str:
        """Return the body of a page of the site; empty when the status is not 200."""
        with contextlib.suppress(RequestFailed):
            answer = self._client.send("GET", path)
            if answer.status == http.HTTPStatus.OK:
                return answer.body.decode()
        return ""

    def count_rows(self, query: str, *values: str) -> int:
        """Return the result of a ``select count(*)``."""
        # `with` on a connection commits but does not close it, hence `closing`.
        with contextlib.closing(sqlite3.connect(f"file:{self._state.database}?mode=ro", uri=True)) as database:
            return int(database.execute(query, values).fetchone()[0])


def _read_mail(raw: bytes) -> KeptMail:
    found = email.message_from_bytes(raw, policy=email.policy.default)
    to = str(found["X-Envelope-To"] or found["To"])
    return KeptMail(to, str(found["Subject"]), str(found["Message-ID"]).strip(" <>"))


@dataclass(frozen=True, slots=True)
class Seen:
    """Observation of one outcome: its description, whether it is as expected, and the job's duration in seconds."""

    text: str
    as_expected: bool
    seconds: float | None = None


def states(jobs: Sequence[SentJob]) -> str:
    """Return the number of jobs in each state as text."""
    return (
        ", ".join(f"{count} {state}" for state, count in Counter(job.state for job in jobs).items())
        or "nothing sent yet"
    )


def all_succeeded(jobs: Sequence[SentJob]) -> bool:
    """Whether there is a job and every job succeeded."""
    return bool(jobs) and all(job.state == "succeeded" for job in jobs)


def longest_s(jobs: Sequence[SentJob]) -> float | None:
    """Return the longest time from enqueueing to the end, in seconds."""
    return max((job.took_s for job in jobs if job.took_s is not None), default=None)
