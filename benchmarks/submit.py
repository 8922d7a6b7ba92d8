"""The whole path: from an HTTP request to its 202 and on to the start of its task, 100 times a second.

Run as people run it: whole stack, append-only file, the urgent pool under its parent. The task does nothing.
"""

import datetime
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import urllib3

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.figures import quantile
from benchmarks.peers import PEERS, Peer
from benchmarks.throwaway_yard import ThrowawayYard, throwaway_yard, until

RATE_PER_S = 100
CLIENTS = 16
WARM_UP = 100


@dataclass(frozen=True, slots=True)
class Client:
    """API client with a token."""

    url: str
    token: str
    http: urllib3.PoolManager

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a request and return the answer's JSON."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = self.http.request(method, self.url + path, json=body, headers=headers, timeout=10)
        if answer.status >= 300:
            raise TimeoutError(f"{method} {path} was answered with {answer.status}: {answer.data[:200]!r}")
        return answer.json()


@dataclass(frozen=True, slots=True)
class Submitted:
    """One request."""

    job_id: str
    sent_s: float  # since the epoch
    answered_s: float


def measure(bench: Bench, peer: Peer) -> Figures:
    """Send requests to one web process at an even rate; then read each job's start time."""
    with throwaway_yard(DJANGO_SETTINGS_MODULE="benchmarks.web_yard.settings", SWITCHYARD_LOG_FORMAT="json") as yard:
        client = _start(yard)
        submitted = _submit(client, WARM_UP + RATE_PER_S * bench.count(10, least=3))[WARM_UP:]
        started_ms = [(_started_s(client, job.job_id) - job.sent_s) * 1000 for job in submitted]
    answered_ms = [(job.answered_s - job.sent_s) * 1000 for job in submitted]
    return {
        "http_p50_ms": quantile(started_ms, 0.5),
        "http_p99_ms": quantile(started_ms, 0.99),
        "http_answer_p50_ms": quantile(answered_ms, 0.5),
        "http_answer_p99_ms": quantile(answered_ms, 0.99),
    }


def _start(yard: ThrowawayYard) -> Client:
    os.environ["DJANGO_SUPERUSER_PASSWORD"] = "not needed by anybody"
    yard.run("createsuperuser", "--noinput", "--username", "bench", "--email", "bench@shop.example")
    token = json.loads(yard.run("tokens", "create", "--user", "bench", "--scopes", "submit,read", "--json"))["token"]
    yard.start("runpools", "urgent", ready="pools: all ready")
    return Client(yard.start_web(), token, urllib3.PoolManager(maxsize=CLIENTS))


def _submit(client: Client, count: int) -> list[Submitted]:
    def one(number: int) -> Submitted:
        sent_s = time.time()
        job_id = client.ask("POST", "/api/v1/nothings", {"note": f"number {number}"})["job_id"]
        return Submitted(job_id, sent_s, time.time())

    begun_s = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        waiting = []
        for number in range(count):
            time.sleep(max(begun_s + number / RATE_PER_S - time.monotonic(), 0))
            waiting.append(clients.submit(one, number))
        return [done.result() for done in waiting]


def _started_s(client: Client, job_id: str) -> float:
    found: dict[str, Any] = {}

    def started() -> object:
        found.update(client.ask("GET", f"/api/v1/jobs/{job_id}"))
        return found["started_at"]

    until(started, timeout_s=60, what=f"the start of job {job_id}")
    return datetime.datetime.fromisoformat(found["started_at"]).timestamp()


BENCHMARK = Benchmark(
    "http", "How long is the whole way from a request to its task?", measure, (PEERS["switchyard-stack"],)
)
