"""The yard's processes: Valkey, web, pools and scheduler on a throw-away folder, filled by ``devtools.room.seed``."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from switchyard.embedded.server import EmbeddedServer
from switchyard.workers.shared.fork import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = "devtools.room.settings"
START_S = 300.0
STOP_S = 30.0
POLL_S = 0.05
PREPARED = "prepared"


@dataclass
class RoomYard:
    """A running yard; ``environment`` is that of every process, ``facts`` what ``devtools.room.seed`` made."""

    folder: Path
    environment: dict[str, str]
    url: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    asked: int = 0

    def start(self, name: str, *command: str) -> None:
        """Start a Python process whose output goes into the folder's ``<name>.log``."""
        with self.log(name).open("w") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=die_with_parent(15),
            )

    def run(self, *command: str) -> str:
        """Run a Python process to its end and return what it printed."""
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout

    def make(self, name: str, *arguments: Any) -> Any:
        """Make something of :data:`devtools.room.makers.MAKERS`, and return its answer."""
        seed = self.processes["seed"]
        if seed.stdin is None:
            raise ValueError("the process that makes things has no standard input; start it with start()")
        seed.stdin.write(json.dumps([name, *arguments]) + "\n")
        seed.stdin.flush()
        number, self.asked = self.asked, self.asked + 1
        return json.loads(self.wait_for_line("seed", f"answer {number} "))

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def wait_for_line(self, name: str, ready: str) -> str:
        """Wait until a process has printed ``ready``, and return what follows on that line.

        Raises:
            RuntimeError: the process has ended.
            TimeoutError: it has not within five minutes.
        """
        log, process = self.log(name), self.processes[name]

        def printed() -> bool:
            if "\n" in log.read_text().partition(ready)[2]:
                return True
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{log.read_text()[-3_000:]}")
            return False

        until(printed, f"{name}: {ready!r} in {log}")
        return log.read_text().partition(ready)[2].partition("\n")[0].strip()

    def stop(self) -> None:
        (self.folder / "exports-run").unlink(missing_ok=True)
        for process in self.processes.values():
            if process.stdin is not None:
                process.stdin.close()
            process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()
            process.wait()


@contextlib.contextmanager
def room_yard(**environment: str) -> Iterator[RoomYard]:
    """Run a yard with something on every page, until the block ends."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with (
        tempfile.TemporaryDirectory(prefix="switchyard-room-", ignore_cleanup_errors=True) as folder,
        EmbeddedServer(Path(folder) / "valkey") as server,
    ):
        own = {
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "SWITCHYARD_STATE_DIR": folder,
            "SWITCHYARD_BROKER_URL": server.url,
            "SWITCHYARD_CORES": "2",
        }
        yard = RoomYard(Path(folder), kept | own | environment)
        try:
            yard.start("seed", "-m", "devtools.room.seed")
            yard.wait_for_line("seed", PREPARED)
            yard.start("pools", "manage.py", "runpools", "--grace=2")
            yard.start("scheduler", "manage.py", "runscheduler")
            yard.start("web", "manage.py", "runweb", "--port", "0")
            yard.url = yard.wait_for_line("web", "running on ").split()[0].rstrip("/")
            yard.facts = json.loads(yard.wait_for_line("seed", "facts "))
            yield yard
        finally:
            yard.stop()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it was not true within five minutes.
    """
    deadline = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {START_S} s: {what}")
        time.sleep(POLL_S)
