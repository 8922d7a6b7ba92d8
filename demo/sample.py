"""One run of the sample work: a client of the API, the jobs it made and where they stand, and the traces they left."""

from __future__ import annotations

import contextlib
import datetime
import email.parser
import http
import itertools
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import urllib3

from demo.state import DemoError
from demo.yard import DemoYard

TIMEOUT_S = 10.0
POLL_S = 0.5
PAUSE_S = 0.05
HOLDS = {"rate_limit": "held back by the rate limit", "lock": "waits for a lock"}
ENDED = frozenset({"succeeded", "dead", "cancelled", "expired"})


class RequestFailed(DemoError):
    """The API refused a request, or did not answer."""

    def __init__(self, method: str, path: str, fact: str) -> None:
        super().__init__(f"{method} {path}: {fact}; see the log of the part `web`")


class Client:
    """Client that sends requests with a token. Safe to share between threads."""

    def __init__(self, site: str, token: str) -> None:
        self._site, self._token = site.rstrip("/"), token
        self._pool = urllib3.PoolManager(maxsize=4, timeout=TIMEOUT_S)

    def send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, key: str = "", **content: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send one request and return the answer, whatever its status.

        Args:
            path: Path below the site's root, or an absolute URL from an answer of the API.
            headers: Sent in place of the token.
            key: ``Idempotency-Key``; with one, and for GET, a lost answer is requested again.
            content: ``json``, ``body`` or ``fields`` of :meth:`urllib3.PoolManager.request`.

        Raises:
            RequestFailed: no answer.
        """
        sent = dict(headers or {"Authorization": f"Bearer {self._token}"}) | ({"Idempotency-Key": key} if key else {})
        read = 2 if key or method == "GET" else 0
        retries = urllib3.Retry(connect=3, read=read, status=0, redirect=0, backoff_factor=0.2, allowed_methods=None)
        address = self._site + path.removeprefix(self._site)
        try:
            return self._pool.request(method, address, headers=sent, retries=retries, **content)
        except urllib3.exceptions.HTTPError as error:
            raise RequestFailed(method, path, type(error).__name__) from error

    def ask(self, method: str, path: str, *, expect: int, **more: Any) -> Any:
        """Send one request and return its JSON.

        Raises:
            RequestFailed: no answer, or another status than ``expect``.
        """
        answer = self.send(method, path, **more)
        if answer.status != expect:
            said = answer.data[:300].decode(errors="replace")
            raise RequestFailed(method, path, f"answered {answer.status} instead of {expect}: {said}")
        return answer.json()


@dataclass
class Job:
    """One job, and the last answer of ``GET /api/v1/jobs/{id}``; its state is ``sent`` before the first."""

    title: str
    job_id: str
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        return str(self.body.get("state", "sent"))

    @property
    def reason(self) -> str:
        return str(self.body.get("reason") or "")

    @property
    def attempts(self) -> int:
        return int(self.body.get("attempts", 0))

    def seconds(self, first: str = "enqueued_at", second: str = "finished_at") -> float | None:
        """Return the seconds between two times of the job; ``None`` while one of them is missing."""
        start, end = self.body.get(first), self.body.get(second)
        if not start or not end:
            return None
        return (datetime.datetime.fromisoformat(end) - datetime.datetime.fromisoformat(start)).total_seconds()

    def news(self) -> str:
        """Return a line about the job's new state; "" for the intermediate states queued and running."""
        error = (self.body.get("error") or {}).get("type", "an error")
        attempts = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        again = f" at attempt {self.attempts}" if self.attempts > 1 else ""
        lines = {
            "succeeded": f"done in {self.seconds() or 0:.1f} s{again}",
            "retrying": f"attempt {self.attempts} failed ({error}); it waits in its retry queue",
            "dead": f"given up after {attempts} ({error}); see the dead letters",
            "scheduled": HOLDS.get(self.reason, ""),
            "cancelled": "cancelled",
            "expired": "expired",
        }
        return f"{self.title}: {line}" if (line := lines.get(self.state, "")) else ""


@dataclass(frozen=True, slots=True)
class Seen:
    """Observation of one outcome: its description, whether it is as expected, and the job's duration in seconds."""

    text: str
    as_expected: bool
    seconds: float | None = None


@dataclass
class Order:
    """One row of the table in one run: its jobs, and the statuses of requests that make none."""

    run: SampleRun
    jobs: list[Job] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def submit(self, title: str, path: str, **content: Any) -> dict[str, Any]:
        """Send one request for jobs, follow them, and return the answer."""
        accepted = http.HTTPStatus.ACCEPTED
        key = f"demo-{self.run.key}-{next(self.run.numbers)}"
        body: dict[str, Any] = self.run.client.ask("POST", path, expect=accepted, key=key, **content)
        for job_id in body.get("job_ids") or [body["job_id"]]:
            self.jobs.append(Job(title, job_id))
        self.run.pause()
        return body

    def wait_for(self, reason: str) -> None:
        """Follow the row's jobs until one has a reason, for at most 10 s."""
        until_s = time.monotonic() + TIMEOUT_S
        while all(job.reason != reason for job in self.jobs) and time.monotonic() < until_s:
            self.run.look_later()  # the API answers a token so many reads a minute
            self.run.follow()

    def ended_as(self, state: str, reason: str = "") -> bool:
        return bool(self.jobs) and all((job.state, job.reason) == (state, reason) for job in self.jobs)

    def seen(self, as_expected: bool, text: str = "") -> Seen:
        """Return an observation: the number of jobs in each state and a text, or only the text where there is none."""
        states = Counter(job.state for job in self.jobs)
        said = [f"{count} {state}" for state, count in states.items()] + [text] * bool(text)
        longest_s = max((took for job in self.jobs if (took := job.seconds()) is not None), default=None)
        return Seen(", ".join(said) or "nothing sent yet", as_expected, longest_s)

    def mails(self) -> int:
        """Count the mails of the row's jobs; a mail that was sent twice counts twice."""
        ids = tuple(job.job_id for job in self.jobs)
        return sum(mail["Message-ID"].strip().lstrip("<").startswith(ids) for mail in self.run.mails())


class SampleRun:
    """One run, which sends each row of the table once and follows its jobs in a thread of its own.

    Args:
        is_over: Waits so many seconds, less when the demo stops, and returns whether it does.
    """

    def __init__(self, yard: DemoYard, say: Callable[[str], object], *, is_over: Callable[[float], bool]) -> None:
        self.token = yard.token
        self.client = Client(yard.addresses.site, yard.token)
        self.key = secrets.token_hex(4)
        self.facts = yard.facts
        self.receiver = yard.addresses.receiver
        self.payment_secret = yard.identity.payment_secret
        self.state = yard.state
        self.say = say
        self.pause, self.look_later = partial(is_over, PAUSE_S), partial(is_over, POLL_S)
        self.orders: dict[str, Order] = {}
        self.numbers = itertools.count()
        self._files: dict[str, bytes] = {}

    def start(self, rows: Mapping[str, Callable[[Order], object]]) -> None:
        """Send each row in a thread that then follows the jobs until the run is over."""
        self.orders = {name: Order(self) for name in rows}
        threading.Thread(target=self._send_and_follow, args=(rows,), name="sample work", daemon=True).start()

    def jobs(self) -> list[Job]:
        return [job for order in self.orders.values() for job in list(order.jobs)]

    def _send_and_follow(self, rows: Mapping[str, Callable[[Order], object]]) -> None:
        from django.db import connections

        for name, send in rows.items():
            try:
                send(self.orders[name])
            except RequestFailed as error:
                self.say(f"sample work could not be sent: {error}")
            self.follow()
        connections.close_all()
        while not self.look_later():
            self.follow()

    def follow(self) -> None:
        """Ask for the state of each job that has not ended, and say what is new."""
        for job in self.jobs():
            if job.state in ENDED:
                continue
            try:
                answer = self.client.send("GET", f"/api/v1/jobs/{job.job_id}")
            except RequestFailed:
                return  # the web is being restarted, which the runner reports
            if answer.status != http.HTTPStatus.OK:
                continue
            before = (job.state, job.attempts)
            job.body = answer.json()
            if before != (job.state, job.attempts) and (line := job.news()):
                self.say(line)

    def mails(self) -> list[Any]:
        """Return the heads of the mails in the sink's mailbox."""
        parser = email.parser.BytesHeaderParser()
        return [parser.parsebytes(path.read_bytes()) for path in (self.state.mailbox / "new").glob("*.eml")]

    def arrived(self, path: str) -> list[dict[str, Any]]:
        """Return the requests that one path of the receiver answered, oldest first."""
        try:
            lines = self.state.deliveries.read_text().splitlines()
        except FileNotFoundError:
            return []
        entries = [json.loads(line) for line in lines if line.endswith("}")]
        return [entry for entry in entries if entry["path"] == path]

    def file_of(self, job: Job) -> bytes:
        """Return a job's result file; empty while there is none."""
        if job.job_id not in self._files and (url := job.body.get("result_url")):
            self._files[job.job_id] = self.page(url)
        return self._files.get(job.job_id, b"")

    def page(self, address: str) -> bytes:
        """Return a page of the site; empty when it does not answer 200."""
        with contextlib.suppress(RequestFailed):
            answer = self.client.send("GET", address)
            if answer.status == http.HTTPStatus.OK:
                return answer.data
        return b""

    def count(self, model: str, **conditions: Any) -> int:
        """Count rows of a model, ``app.Model``."""
        from django.apps import apps

        return int(apps.get_model(model).objects.filter(**conditions).count())

    def keep_secret(self, secret: str) -> None:
        """Tell the receiver the secret of an endpoint."""
        path: Path = self.state.webhook_secrets
        with path.open("a") as file:
            file.write(f"{secret}\n")
