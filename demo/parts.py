"""A part of the demo: one process, its log, and how to tell that it is ready."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from apps.platform.workers.shared.parent_death import die_with_parent
from project.config import BASE_DIR

LOG_LIMIT_BYTES = 10_000_000
LAST_LINES = 12


class Part(Protocol):
    """What the process manager needs of a part."""

    @property
    def name(self) -> str:
        """What people call it; also its log's name."""

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""

    @property
    def log_path(self) -> Path:
        """Its log."""

    @property
    def log_start_bytes(self) -> int:
        """Where in its log its last start begins."""

    @property
    def ready_timeout_s(self) -> float:
        """It must be ready this long after its start."""

    @property
    def stop_timeout_s(self) -> float:
        """It must have ended this long after it was asked to."""

    def start(self) -> None:
        """Start its process."""

    def exit_code(self) -> int | None:
        """Return how its process ended; ``None`` while it runs."""

    def missing(self) -> str:
        """Return what it still lacks to be ready; "" when it is."""

    def terminate(self) -> None:
        """Ask it to end in good order."""

    def kill(self) -> None:
        """End it at once."""


class AdoptedProcess:
    """A child that ``subprocess`` knows nothing of."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended (minus the signal when killed by one); ``None`` while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid != 0:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


@dataclass
class CommandPart:
    """A part that is a command of its own.

    It gets its own session, so that a Ctrl-C in the terminal reaches the demo alone, and ends when the demo ends.

    Args:
        environment: The whole environment of the process.
        inherits: Descriptors it is handed.
        readiness: Returns what it still lacks, "" when it is ready; by default a process that runs is ready.
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
        """Its process, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the command, its output appended to the log. Does nothing while it runs."""
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
        """Take a process that another one forked, and that is our child now, for its first start."""
        self._process = AdoptedProcess(pid)

    def exit_code(self) -> int | None:
        """Return how the process ended (minus the signal when killed by one); ``None`` while it runs."""
        return None if self._process is None else self._process.poll()

    def missing(self) -> str:
        """Return what it still lacks to be ready; "" when it is."""
        return self.readiness()

    def terminate(self) -> None:
        """Ask it to end in good order."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and whatever is left of its session at once."""
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
        """Open the log for another start, and put it aside first where it is too long."""
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_LIMIT_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        log = self.log_path.open("ab")
        self.log_start_bytes = log.tell()
        return log


def last_lines(path: Path, start_bytes: int = 0, count: int = LAST_LINES) -> str:
    """Return the last lines that a log has after ``start_bytes``; "" when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(start_bytes, path.stat().st_size - 20_000))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-count:])
