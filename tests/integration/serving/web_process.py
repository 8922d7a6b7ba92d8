"""The web in a process of its own, and what an attacker makes it use."""

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from project.config import BASE_DIR
from tests.waiting import wait_for

MIB = 1024 * 1024
MAKES_ADA = """
from django.contrib.auth.models import User
from django.core.management import call_command
from switchyard.api.tokens import create_token
call_command("migrate", verbosity=0)
ada = User.objects.create_superuser("ada", "ada@example.com", "correct horse")
print(create_token(owner=ada, scopes=["submit", "read", "operate"], name="test")[1])
"""


@dataclass
class WebProcess:
    """``manage.py switchyard runweb`` with a migrated database, a user ``ada`` and her token."""

    folder: Path
    broker_url: str
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.environment = {
            **kept, "SWITCHYARD_STATE_DIR": str(self.folder), "SWITCHYARD_BROKER_URL": self.broker_url, **self.extra,
        }  # fmt: skip
        self.log = self.folder / "web.log"
        self.token = self.manage("shell", "--verbosity=0", "-c", MAKES_ADA).split()[-1]

    def manage(self, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *command], cwd=BASE_DIR, env=self.environment, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout

    def start(self) -> None:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "runweb", "--port", "0"], cwd=BASE_DIR, env=self.environment, stdout=log,
                stderr=log,
            )  # fmt: skip
        found = wait_for(
            lambda: re.search(r"running on http://127.0.0.1:(\d+)", self.log.read_text()), 60, what="the web to start"
        )
        self.port = int(found.group(1))
        self.ps = psutil.Process(self.process.pid)
        for _ in range(20):
            self.request("GET", "/healthz")
            self.request("GET", "/api/v1/queues", headers=self.bearer)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request; return status, headers in lower case, and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def rss_bytes(self) -> int:
        return self.ps.memory_info().rss


@dataclass
class Probe:
    """Largest memory of the web while an attack runs, and that it answers ``/healthz``."""

    web: WebProcess
    before_bytes: int = 0
    most_bytes: int = 0

    @property
    def grown_mib(self) -> float:
        return (self.most_bytes - self.before_bytes) / MIB

    def look(self) -> None:
        assert self.web.request("GET", "/healthz")[0] == 200
        self.most_bytes = max(self.most_bytes, self.web.rss_bytes())


@contextlib.contextmanager
def probing(web: WebProcess) -> Iterator[Probe]:
    """Measure the web ten times a second until the block ends."""
    probe = Probe(web, before_bytes=web.rss_bytes())
    over = threading.Event()
    failed: list[Exception] = []

    def run() -> None:
        try:
            while not over.wait(0.1):
                probe.look()
        except Exception as error:  # noqa: BLE001  raised by the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield probe
    finally:
        over.set()
        thread.join()
    probe.look()
    assert not failed, failed


def flood(client: socket.socket, piece: bytes, most_bytes: int) -> int:
    """Send a piece again and again until the other side cuts; return the bytes that were sent."""
    sent = 0
    try:
        while sent < most_bytes:
            client.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    return sent


def answer_of(client: socket.socket) -> bytes:
    """Return everything that the other side sends until it closes."""
    received = b""
    with contextlib.suppress(OSError):
        while piece := client.recv(65536):
            received += piece
    return received
