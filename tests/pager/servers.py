"""Prometheus and Alertmanager of Debian with rendered files, and receivers that answer as the real services do."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from switchyard.embedded.server import free_port
from tests.factories.endpoints import Answering, answers_of
from tests.waiting import wait_for

# Path of each service below a receiver's address, and its answer to a request that it takes.
ANSWERS = {
    "/slack": (200, "text/plain", b"ok"),
    "/pagerduty": (202, "application/json", b'{"status":"success","message":"Event processed","dedup_key":"k"}'),
    "/tickets": (201, "application/json", b"{}"),
}


@dataclass
class Receiver:
    """Messages that Slack, PagerDuty and a tracker were sent, each with its time by the monotonic clock."""

    url: str = ""
    got: list[tuple[str, float, dict[str, Any]]] = field(default_factory=list)

    def of(self, service: str) -> list[tuple[float, dict[str, Any]]]:
        """Return what a service was sent, in order."""
        return [(at_s, body) for path, at_s, body in list(self.got) if path == f"/{service}"]


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """Serve on a free port of loopback until the block ends."""
    found = Receiver()

    class Handler(Answering):
        def do_POST(self) -> None:
            found.got.append((self.path, time.monotonic(), json.loads(self.body())))
            status, kind, content = ANSWERS.get(self.path, (404, "text/plain", b"no such service"))
            self.answer(status, content, kind)

    with answers_of(Handler) as port:
        found.url = f"http://127.0.0.1:{port}"
        yield found


def program(name: str) -> str:
    """Return the path of a program. Raises ``AssertionError`` with a remedy where there is none."""
    path = shutil.which(name)
    assert path, f"{name} is not installed; run: apt-get install prometheus prometheus-alertmanager"
    return path


@contextlib.contextmanager
def running(log: Path, ready_url: str, *command: str) -> Iterator[None]:
    """Run a server in the foreground until the block ends, and wait for its answer first."""
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=log.parent, stdout=output, stderr=output)
    try:
        wait_for(lambda: process.poll() is not None or _answers(ready_url), 60, what=f"{command[0]} to answer")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass
class Monitoring:
    """Prometheus and Alertmanager that run."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of Prometheus's API. Raises ``urllib.error.HTTPError`` for a refused query."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series that a query finds now."""
        return [(found["metric"], float(found["value"][1])) for found in self.ask("query", query=query)["result"]]


def address(port: int) -> str:
    return f"127.0.0.1:{port}"


@contextlib.contextmanager
def monitoring(folder: Path, prometheus_port: int, alertmanager_port: int) -> Iterator[Monitoring]:
    """Run both on the files ``prometheus.yml``, ``rules.yml`` and ``alertmanager.yml`` of a folder, as they are."""
    alertmanager, prometheus = address(alertmanager_port), address(prometheus_port)
    with (
        running(
            folder / "alertmanager.log",
            f"http://{alertmanager}/-/ready",
            program("prometheus-alertmanager"),
            "--config.file=alertmanager.yml",
            f"--storage.path={folder}/alertmanager-data",
            f"--web.listen-address={alertmanager}",
            "--cluster.listen-address=",
        ),
        running(
            folder / "prometheus.log",
            f"http://{prometheus}/-/ready",
            program("prometheus"),
            "--config.file=prometheus.yml",
            f"--storage.tsdb.path={folder}/prometheus-data",
            f"--web.listen-address={prometheus}",
        ),
    ):
        yield Monitoring(f"http://{prometheus}")


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nothing uses."""
    return [free_port() for _ in range(count)]
