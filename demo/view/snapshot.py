"""State of the yard for the terminal, collected from its API, its pools' reports and its mailbox."""

from __future__ import annotations

import http
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from demo.client import Client, RequestFailed
from demo.sample.journal import Journal, SentJob
from demo.view.feed import Feed, Line
from demo.view.job_lines import JobLines
from demo.yard import DemoYard
from switchyard.broker.stores.pool_reports import PoolReport

EVERY_S = 1.0
MEMORY_EVERY = 5
FEED_LINES = 200


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The yard at one moment.

    Args:
        queues: As ``GET /api/v1/queues`` lists them; the last answer while the web does not answer.
        memory_bytes: Sum of proportional set sizes; 0 before it was measured.
        mails: Mails in the mailbox.
        others: State -> number of jobs that the sample did not send.
    """

    up_s: float = 0.0
    queues: list[dict[str, Any]] = field(default_factory=list)
    pools: list[PoolReport] = field(default_factory=list)
    jobs: list[SentJob] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    memory_bytes: int = 0
    mails: int = 0
    others: dict[str, int] = field(default_factory=dict)


class Observer:
    """Collector of a snapshot each second, in its own thread, so that rendering never waits."""

    def __init__(self, yard: DemoYard, client: Client, journal: Journal, feed: Feed) -> None:
        self._yard = yard
        self._client = client
        self._journal = journal
        self._feed = feed
        self._job_lines = JobLines(yard.state.pools_log, journal, feed)
        self._started_at = time.monotonic()
        self._queues: list[dict[str, Any]] = []
        self._pools: list[PoolReport] = []
        self._mails = 0
        self._memory_bytes = 0
        self._lock = threading.Lock()

    def watch(self, is_over: Callable[[float], bool]) -> None:
        """Collect until the demo stops; ``is_over`` waits so many seconds and returns whether it does."""
        turn = 0
        while True:
            self._collect(with_memory=turn % MEMORY_EVERY == 0)
            turn += 1
            if is_over(EVERY_S):
                return

    def snapshot(self) -> Snapshot:
        """Return the last state."""
        with self._lock:
            return Snapshot(
                up_s=time.monotonic() - self._started_at,
                queues=self._queues,
                pools=self._pools,
                jobs=self._journal.all(),
                lines=self._feed.last(FEED_LINES),
                memory_bytes=self._memory_bytes,
                mails=self._mails,
                others=dict(self._job_lines.states),
            )

    def _collect(self, *, with_memory: bool) -> None:
        self._job_lines.read()
        queues = self._fetch_queues()
        pools = self._yard.pools.read()
        mails = self._yard.state.count_mails()
        memory_bytes = self._yard.memory_bytes if with_memory else self._memory_bytes
        with self._lock:
            self._queues, self._pools, self._mails, self._memory_bytes = queues, pools, mails, memory_bytes

    def _fetch_queues(self) -> list[dict[str, Any]]:
        try:
            answer = self._client.send("GET", "/api/v1/queues")
        except RequestFailed:
            return self._queues
        if answer.status != http.HTTPStatus.OK:
            return self._queues
        found = answer.json()
        return list(found["queues"] if isinstance(found, dict) else found)
