"""A running ``bin/demo`` for tests: its output, its credentials, its API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import urllib3

from project.config import BASE_DIR
from tests.waiting import wait_for

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0


class RunningDemo:
    def __init__(self, state: Path, *arguments: str) -> None:
        self.state = state
        self.output = ""
        reader, writer = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "demo", "--state", str(state), *arguments],
            cwd=BASE_DIR,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
        )
        os.close(writer)
        self._reader = threading.Thread(target=self._read, args=(reader,))
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def credentials(self) -> dict[str, Any]:
        return json.loads((self.state / "credentials.json").read_text())

    def wait_until_ready(self) -> str:
        """Return the address of the site."""
        wait_for(
            lambda: "ready: " in self.output or self._process.poll() is not None,
            timeout_s=START_TIMEOUT_S,
            what="a demo that is ready",
        )
        lines = [line.strip() for line in self.output.splitlines() if line.startswith("ready: ")]
        assert len(lines) == 1, self.output
        return lines[0].removeprefix("ready: ")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request with the demo's token and return its JSON."""
        headers = {"Authorization": f"Bearer {self.credentials['api_token']}"}
        site = self.credentials["url"].rstrip("/")
        with urllib3.PoolManager() as pool:
            answer = pool.request(method, site + path, json=body, headers=headers, timeout=30.0)
            assert answer.status < 300, answer.data
            return answer.json()

    def wait_for_line(self, text: str, timeout_s: float = 30.0) -> None:
        """Wait until it has said something."""
        wait_for(lambda: text in self.output, timeout_s=timeout_s, what=f"{text!r} in the output")

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def end(self) -> int:
        code = self._process.wait(STOP_TIMEOUT_S)
        self._reader.join()
        return code

    def kill(self) -> None:
        """End it at once, for a test that failed."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _read(self, descriptor: int) -> None:
        while True:
            piece = os.read(descriptor, 65536)
            if not piece:
                os.close(descriptor)
                return
            self.output += piece.decode(errors="replace")
