"""Processes of the demo: commands, forked children, the embedded Valkey; their memory, and orphans at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from project.config import BASE_DIR
from switchyard.embedded.server import EmbeddedServer
from switchyard.workers.shared.parent_death import die_with_parent

LOG_LIMIT_BYTES = 10_000_000
LAST_LINES = 12
LEFTOVERS_TIMEOUT_S = 2.0


class AdoptedProcess:
    """A child process that this process did not start through ``subprocess``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, minus the signal when killed by one; ``None`` while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid != 0:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


@dataclass
class CommandPart:
    """A part that runs a command.

    Runs in its own session, so that Ctrl-C in the terminal reaches the demo alone, and ends with the demo.

    Args:
        environment: Complete environment of the process.
        inherits: Descriptors it inherits.
        readiness: Returns the reason why it is not ready, "" when it is; by default a running process is ready.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_path: Path
    inherits: Sequence[int] = ()
    readiness: Callable[[], str] = lambda: ""
    ready_timeout_s: float = 60.0
    stop_timeout_s: float = 15.0
    log_start_bytes: int = field(default=0, init=False, repr=False)
    _process: subprocess.Popen[bytes] | AdoptedProcess | None = field(default=None, init=False, repr=False)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the command; its output is appended to the log. Does nothing while it runs."""
        if self.pid is not None:
            return
        with self.open_log() as log:
            self._process = subprocess.Popen(
                list(self.command),
                cwd=BASE_DIR,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=tuple(self.inherits),
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    def adopt(self, pid: int) -> None:
        """Use a process that set-up forked, now our child, as the first start."""
        self._process = AdoptedProcess(pid)

    def exit_code(self) -> int | None:
        """Return the exit code, minus the signal when killed by one; ``None`` while it runs."""
        return None if self._process is None else self._process.poll()

    def missing(self) -> str:
        """Return the reason why the part is not ready; "" when it is ready."""
        return self.readiness()

    def terminate(self) -> None:
        """Request a graceful end by SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and the rest of its session."""
        self._signal(signal.SIGKILL)

    def _signal(self, signum: signal.Signals) -> None:
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if signum is signal.SIGKILL:
                os.killpg(self.pid, signum)
            else:
                os.kill(self.pid, signum)

    def open_log(self) -> IO[bytes]:
        """Open the log for a start; a log over 10 MB is renamed to ``.log.1`` first."""
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_LIMIT_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        log = self.log_path.open("ab")
        self.log_start_bytes = log.tell()
        return log


def last_lines(path: Path, start_bytes: int = 0, count: int = LAST_LINES) -> str:
    """Return the last lines of a log after ``start_bytes``; "" when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(start_bytes, path.stat().st_size - 20_000))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-count:])


@dataclass
class BrokerPart:
    """The embedded Valkey server. Its start waits until it answers, so a started one is ready."""

    server: EmbeddedServer
    name: str = "valkey"
    log_start_bytes: int = 0
    ready_timeout_s: float = 30.0
    stop_timeout_s: float = 10.0
    _was_started: bool = field(default=False, init=False, repr=False)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self.server.pid

    @property
    def log_path(self) -> Path:
        """The server's own log."""
        return self.server.log_path

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedServerFailed: it does not answer.
        """
        self.server.start()
        self._was_started = True

    def exit_code(self) -> int | None:
        """Return 1 when it has ended; ``None`` while it runs."""
        return 1 if self._was_started and not self.server.running else None

    def missing(self) -> str:
        """Return "": a started server answers."""
        return ""

    def terminate(self) -> None:
        """Stop the server, which first syncs its append-only file."""
        self.server.stop(self.stop_timeout_s)

    def kill(self) -> None:
        """Kill it."""
        self.server.kill()


def end_leftovers() -> list[str]:
    """Wait 2 s for descendants that still run, kill those that remain, and return their names."""
    _, stubborn = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=LEFTOVERS_TIMEOUT_S)
    names = []
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            names.append(f"{process.name()} ({process.pid})")
            process.kill()
    psutil.wait_procs(stubborn, timeout=LEFTOVERS_TIMEOUT_S)
    return names


def proportional_bytes(pid: int) -> int:
    """Return the sum of the proportional set sizes of a process and its descendants.

    A shared page counts once in total. Where the system does not report them (not Linux), resident sizes are added.
    """
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                total += _proportional_bytes_of(process)
    return total


def _proportional_bytes_of(process: psutil.Process) -> int:
    smaps = Path(f"/proc/{process.pid}/smaps_rollup")
    if not smaps.exists():
        return int(process.memory_info().rss)
    for line in smaps.read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
