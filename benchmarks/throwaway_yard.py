"""A yard of real processes in a throw-away folder, for measurements: Valkey, database, mail sink, pools."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from switchyard.embedded.server import EmbeddedServer
from switchyard.workers.shared.fork import die_with_parent

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class ThrowawayYard:
    """Processes and addresses of the yard. This process shares its environment, so Django here uses the same yard."""

    state_dir: Path
    server: EmbeddedServer
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(self, *command: str) -> str:
        """Run a management command to its end and return what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()

    def start(self, *command: str, ready: str) -> str:
        """Start a management command, wait until its output holds ``ready``, and return what follows on that line."""
        return self._start(["manage.py", *command], ready)

    def start_mail_sink(self) -> str:
        """Start the mail server that keeps every mail, and return its address."""
        return self._start(["-m", "apps.mail.sink", "--port", "0", "--dir", str(self.state_dir / "mail")], "ready: ")

    def start_web(self) -> str:
        """Start one web process and return its address."""
        url = self._start(["manage.py", "runweb", "--port", "0"], "Uvicorn running on ")
        return url.split()[0]

    def _start(self, arguments: list[str], ready: str) -> str:
        log = self.state_dir / f"process-{len(self.processes)}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=die_with_parent(15),
            )
        self.processes.append(process)
        until(lambda: ready in log.read_text(), timeout_s=60, what=f"{' '.join(arguments)}: {ready!r} in {log}")
        return log.read_text().partition(ready)[2].partition("\n")[0].strip()

    def stop(self) -> None:
        """Stop everything."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=40)
        self.server.stop()


@contextlib.contextmanager
def throwaway_yard(**environment: str) -> Iterator[ThrowawayYard]:
    """Prepare server, database and sample shop; clean up at the end, the environment of this process included."""
    before = dict(os.environ)
    state_dir = Path(tempfile.mkdtemp(prefix="switchyard-bench-"))
    server = EmbeddedServer(state_dir / "valkey").start()
    os.environ.update(
        {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "SWITCHYARD_STATE_DIR": str(state_dir),
            "SWITCHYARD_BROKER_URL": server.url,
            **environment,
        }
    )
    yard = ThrowawayYard(state_dir, server)
    try:
        yard.run("migrate", "--verbosity=0")
        yard.run("seed")
        yield yard
    finally:
        yard.stop()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(state_dir, ignore_errors=True)


def until(condition: Callable[[], object], *, timeout_s: float, what: str) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it was not true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        time.sleep(0.05)
