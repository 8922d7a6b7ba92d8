"""Processes of the demo: started together, restarted when they die, stopped in the opposite order."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import FrameType

import psutil
from setproctitle import setproctitle

from demo.state import DemoError, Stopped
from switchyard.broker.errors import SwitchyardError
from switchyard.embedded.server import EmbeddedServer
from switchyard.workers.shared import fork

LOG_LIMIT_BYTES = 10_000_000
LAST_LINES = 12
POLL_S = 0.1
SETTLED_S = 30.0
LONGEST_PAUSE_S = 30.0
LEFTOVERS_TIMEOUT_S = 2.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest(threading.Event):
    """Request to stop, set by a signal or by the demo itself: the first drains, a second signal kills."""

    is_forced = False

    def listen(self) -> None:
        """Install handlers for SIGINT, SIGTERM and SIGHUP. From the main thread only."""
        for signum in SIGNALS:
            signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.is_forced = self.is_set()
        self.set()


class Part:
    """A part in a forked process with a session of its own, so that Ctrl-C reaches the demo alone.

    Args:
        job: What it runs; its return is exit code 0, ``SystemExit`` sets another.
        missing: Returns the reason why it is not ready, "" when it is.
    """

    def __init__(
        self,
        name: str,
        job: Callable[[], object],
        log_path: Path,
        *,
        missing: Callable[[], str] = lambda: "",
        ready_timeout_s: float = 60.0,
        stop_timeout_s: float = 15.0,
    ) -> None:
        self.name, self._job, self.log_path, self.missing = name, job, log_path, missing
        self.ready_timeout_s, self.stop_timeout_s = ready_timeout_s, stop_timeout_s
        self.log_start_bytes = 0
        self.started_at = 0.0
        self.restart_at: float | None = None
        self.failures = 0
        self.is_ready = False
        self._process: ForkProcess | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None or self.exit_code() is not None else self._process.pid

    def start(self) -> None:
        """Start it; its output is appended to its log."""
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_LIMIT_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as log:
            self.log_start_bytes = log.tell()
            # A daemon: a demo that ends without having stopped it does not wait for it.
            self._process = ForkProcess(target=self._run, args=(log.fileno(), os.getpid()), daemon=True)
            self._process.start()

    def exit_code(self) -> int | None:
        """Return the exit code, minus the signal when killed by one; ``None`` while it runs."""
        return None if self._process is None else self._process.exitcode

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill the process and the rest of its session, and wait for the end."""
        if self._process is not None and (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            self._process.kill()
            self._process.join()

    def _run(self, log: int, parent_pid: int) -> None:
        for signum in SIGNALS:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        os.setsid()
        if (end_with_demo := fork.die_with_parent(signal.SIGTERM, parent_pid=parent_pid)) is not None:
            end_with_demo()
        for stream in (1, 2):
            os.dup2(log, stream)
        setproctitle(f"switchyard: {self.name}")
        self._job()


class ServerPart(Part):
    """The embedded Valkey server. Its start waits until it answers, so a started one is ready."""

    def __init__(self, server: EmbeddedServer) -> None:
        super().__init__("valkey", server.start, server.log_path, stop_timeout_s=10.0)
        self._server = server

    @property
    def pid(self) -> int | None:
        return self._server.pid

    def exit_code(self) -> int | None:
        return None if self._server.running else 1

    def terminate(self) -> None:
        self._server.stop(self.stop_timeout_s)  # it first syncs its append-only file

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        self._server.kill()


class Runner:
    """Owner of every process of a demo. Use it from the main thread: parts end with the thread that started them.

    Args:
        say: Called with one line of text when a part dies, returns or is killed.
    """

    def __init__(self, say: Callable[[str], object], stop: StopRequest) -> None:
        self._say, self._stop = say, stop
        self._parts: list[Part] = []

    @property
    def pids(self) -> dict[str, int]:
        return {part.name: part.pid for part in self._parts if part.pid is not None}

    def start(self, *parts: Part) -> None:
        """Start parts and wait until each is ready. Those started last are stopped first.

        Raises:
            DemoError: a part ended, or was not ready in time; the others run until :meth:`stop`.
            Stopped: a stop was requested meanwhile.
        """
        for part in parts:
            self._parts.append(part)
            self._start(part)
        pending = list(parts)
        while pending := [part for part in pending if not self._became_ready(part)]:
            if self._stop.wait(POLL_S):
                raise Stopped("stopped before everything was ready")

    def restart_dead(self) -> bool:
        """Restart the parts that have died and return whether any state changed. Call it several times a second."""
        changed = False
        for part in self._parts:
            code = part.exit_code()
            if code is None and (part.is_ready or part.missing()):
                continue
            changed = changed or part.restart_at is None or time.monotonic() >= part.restart_at
            if code is None:
                part.is_ready = True
                self._say(f"{part.name} is back")
            elif part.restart_at is None:
                self._plan_restart(part, f"ended with {describe_exit(code)}")
            elif time.monotonic() >= part.restart_at:
                try:
                    self._start(part)
                except DemoError as error:
                    self._plan_restart(part, f"did not start ({error})")
        return changed

    def stop(self) -> None:
        """Stop every part, the last started first; kill and report one that outlasts its stop timeout."""
        for part in reversed(self._parts):
            deadline = time.monotonic() + part.stop_timeout_s
            part.terminate()
            while part.pid is not None and time.monotonic() < deadline and not self._stop.is_forced:
                time.sleep(POLL_S)
            if part.pid is not None and not self._stop.is_forced:
                self._say(
                    f"{part.name} did not end within {part.stop_timeout_s:g} s: killed; its log is {part.log_path}"
                )
            part.kill()
        self._parts.clear()

    def _start(self, part: Part) -> None:
        part.started_at, part.restart_at = time.monotonic(), None
        try:
            part.start()
        except (OSError, SwitchyardError) as error:
            raise failure(part, str(error)) from error

    def _became_ready(self, part: Part) -> bool:
        if (code := part.exit_code()) is not None:
            raise failure(part, f"ended with {describe_exit(code)} at start")
        missing = part.missing()
        if missing and time.monotonic() > part.started_at + part.ready_timeout_s:
            raise failure(part, f"was not ready within {part.ready_timeout_s:g} s ({missing})")
        part.is_ready = not missing
        return part.is_ready

    def _plan_restart(self, part: Part, fact: str) -> None:
        part.is_ready = False
        if time.monotonic() - part.started_at > SETTLED_S:
            part.failures = 0
        pause_s = min(2.0**part.failures - 1, LONGEST_PAUSE_S)
        part.failures += 1
        part.restart_at = time.monotonic() + pause_s
        when = f"in {pause_s:g} s" if pause_s else "now"
        self._say(f"{part.name} {fact}; starting it again {when}; its log is {part.log_path}")


def describe_exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def failure(part: Part, fact: str) -> DemoError:
    """Return the error of a part, with the last lines of this start in its log."""
    lines: list[str] = []
    with contextlib.suppress(OSError), part.log_path.open("rb") as log:
        log.seek(max(part.log_start_bytes, part.log_path.stat().st_size - 20_000))
        lines = log.read().decode(errors="replace").rstrip().splitlines()
    said = "".join(f"\n    {line}" for line in lines[-LAST_LINES:])
    end = f" and ends with:{said}" if said else " and is empty"
    return DemoError(f"{part.name}: {fact}; its log is {part.log_path}{end}")


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


def memory_bytes() -> int:
    root = psutil.Process()
    return fork.memory_bytes(process.pid for process in [root, *root.children(recursive=True)])
