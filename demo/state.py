"""State folder of a demo, and the lock that keeps a second demo out of it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from demo.errors import StateInUse, StateUnusable, Stopped
from demo.identity import read_private, write_private

LEFTOVERS_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Paths below a state folder."""

    root: Path

    def make(self) -> None:
        """Create the missing folders, with access for their owner only: they hold credentials.

        An existing root keeps its mode; only the demo's own files and folders in it are closed to other users.

        Raises:
            StateUnusable: a folder cannot be created or written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in (self.logs, self.metrics, self.media, self.mailbox):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o700)
            if self.database.exists():
                self.database.chmod(0o600)
            self.lock.touch(mode=0o600)
        except OSError as error:
            raise StateUnusable(self.root, str(error.strerror).lower()) from error

    @property
    def logs(self) -> Path:
        """Logs of the parts."""
        return self.root / "logs"

    @property
    def pools_log(self) -> Path:
        """Log of the worker pools: what each job logs, and how each attempt ends."""
        return self.logs / "pools.log"

    @property
    def broker(self) -> Path:
        """Data of the embedded Valkey."""
        return self.root / "valkey"

    @property
    def broker_socket(self) -> Path:
        """Unix socket of the embedded Valkey, at the default of the settings."""
        return self.root / "valkey.sock"

    @property
    def database(self) -> Path:
        """The SQLite database."""
        return self.root / "db.sqlite3"

    @property
    def media(self) -> Path:
        """Result files of jobs."""
        return self.root / "media"

    @property
    def metrics(self) -> Path:
        """Metric files that the processes share."""
        return self.root / "metrics"

    @property
    def mailbox(self) -> Path:
        """Mails that the sink received."""
        return self.root / "mail"

    @property
    def deliveries(self) -> Path:
        """Requests to the webhook receiver, one line of JSON each."""
        return self.root / "deliveries.jsonl"

    @property
    def credentials(self) -> Path:
        """Addresses and passwords, for users and scripts."""
        return self.root / "credentials.json"

    @property
    def environment(self) -> Path:
        """Settings of the demo for a shell that runs ``manage.py``."""
        return self.root / "environment"

    @property
    def identity(self) -> Path:
        """Secrets and ports that stay the same over restarts."""
        return self.root / "identity.json"

    @property
    def sample(self) -> Path:
        """Webhook endpoints that the sample work has registered."""
        return self.root / "sample.json"

    @property
    def lock(self) -> Path:
        """Lock file; locked by the running demo and every process it started."""
        return self.root / "demo.lock"

    @property
    def owner(self) -> Path:
        """Process id, start time and URL of the demo that holds the lock."""
        return self.root / "demo.owner.json"


class StateLock:
    """Exclusive lock on a state folder, shared with the processes that inherit :attr:`fileno`."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self._handle: int | None = None

    @property
    def fileno(self) -> int:
        """Descriptor for children to inherit: the folder stays locked until the last of them has ended."""
        if self._handle is None:
            raise ValueError("the lock is not held; call acquire() first")
        return self._handle

    def acquire(self, *, is_stopping: Callable[[], bool], timeout_s: float = LEFTOVERS_TIMEOUT_S) -> None:
        """Acquire the lock. Waits for the processes of a killed demo to end, but not for a running demo.

        Raises:
            StateInUse: another demo runs on the folder, or processes of a killed one outlasted ``timeout_s``.
            Stopped: ``is_stopping`` turned true while waiting.
        """
        handle = os.open(self._folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                living = self._living_owner()
                if living or time.monotonic() > deadline or is_stopping():
                    os.close(handle)
                    if is_stopping():
                        raise Stopped("stopped while another demo's processes were ending") from None
                    raise StateInUse(self._folder.root, living or "processes of a demo that was killed") from None
                time.sleep(0.05)
        self._handle = handle
        self.announce("")

    def announce(self, url: str) -> None:
        """Write who holds the lock, and its URL, for the error message of a second demo."""
        process = psutil.Process()
        owner = {"pid": process.pid, "started_at": process.create_time(), "url": url}
        write_private(self._folder.owner, owner)

    def release(self) -> None:
        """Release the lock."""
        if self._handle is not None:
            self._folder.owner.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None

    def _living_owner(self) -> str:
        owner = read_private(self._folder.owner)
        try:
            process = psutil.Process(int(owner["pid"]))
            if process.create_time() != owner["started_at"] or process.status() == psutil.STATUS_ZOMBIE:
                return ""
        except (KeyError, ValueError, psutil.Error):
            return ""
        address = f", {owner['url']}" if owner.get("url") else ", which is starting"
        return f"process {process.pid}{address}"
