"""State folder of a demo: its paths, its private files, and the lock that keeps a second demo out of it."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from switchyard.broker.errors import SwitchyardError

LEFTOVERS_TIMEOUT_S = 30.0


class DemoError(SwitchyardError):
    """Error that stops the demo with exit code 1 and this message."""


class Stopped(DemoError):
    """A stop was requested before the demo was ready."""


class StateFolder:
    """Paths below a state folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.logs = root / "logs"
        self.broker = root / "valkey"
        # At the default of the settings, so that `manage.py` in another terminal finds it.
        self.broker_socket = root / "valkey.sock"
        self.database = root / "db.sqlite3"
        self.media = root / "media"
        self.metrics = root / "metrics"
        self.mailbox = root / "mail"
        self.deliveries = root / "deliveries.jsonl"
        self.webhook_secrets = root / "webhook-secrets"
        self.credentials = root / "credentials.json"
        self.environment = root / "environment"
        self.identity = root / "identity.json"
        self.lock = root / "demo.lock"
        self.owner = root / "demo.owner.json"

    def make(self) -> None:
        """Create the missing folders, with access for their owner only: they hold credentials.

        An existing root keeps its mode; only the demo's own files and folders in it are closed to other users.

        Raises:
            DemoError: a folder cannot be created or written to.
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
            cause = str(error.strerror).lower()
            fact = f"state folder {self.root}: {cause}; choose one that you may write to with --state DIR"
            raise DemoError(fact) from error


class StateLock:
    """Exclusive lock on a state folder, which every forked part holds as well."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self._handle: int | None = None

    def acquire(self, *, is_stopping: Callable[[], bool], timeout_s: float = LEFTOVERS_TIMEOUT_S) -> None:
        """Acquire the lock. Waits for the processes of a killed demo to end, but not for a running demo.

        Raises:
            DemoError: another demo runs on the folder, or processes of a killed one outlasted ``timeout_s``.
            Stopped: ``is_stopping`` turned true while waiting.
        """
        self._handle = os.open(self._folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + timeout_s
        while not self._locks(self._handle):
            living = self._living_owner()
            if living or time.monotonic() > deadline or is_stopping():
                os.close(self._handle)
                self._handle = None
                if is_stopping():
                    raise Stopped("stopped while another demo's processes were ending")
                raise DemoError(
                    f"state folder {self._folder.root}: in use by {living or 'processes of a demo that was killed'}; "
                    "open that one, stop it, or start a second beside it: bin/demo --state DIR"
                )
            time.sleep(0.05)
        os.set_inheritable(self._handle, True)  # for pools that run a command, see `--reload`
        self.announce("")

    def announce(self, url: str) -> None:
        """Write who holds the lock, and its URL, for the error message of a second demo."""
        process = psutil.Process()
        write_private(self._folder.owner, {"pid": process.pid, "started_at": process.create_time(), "url": url})

    def release(self) -> None:
        if self._handle is not None:
            self._folder.owner.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None

    def _locks(self, handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _living_owner(self) -> str:
        owner = read_private(self._folder.owner)
        try:
            process = psutil.Process(int(owner["pid"]))
            if process.create_time() != owner["started_at"] or process.status() == psutil.STATUS_ZOMBIE:
                return ""
        except (KeyError, ValueError, psutil.Error):
            return ""
        return f"process {process.pid}, {owner.get('url') or 'which is starting'}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Secrets and ports of a folder, made once. Port 0 is not chosen yet; a chosen port is reused while it is free."""

    django_secret_key: str
    payment_secret: str
    admin_password: str
    broker_port: int = 0
    smtp_port: int = 0
    receiver_port: int = 0

    def save(self, path: Path) -> None:
        write_private(path, asdict(self))


def load_identity(path: Path) -> Identity:
    """Return the folder's identity; fields that are missing or unusable are generated."""
    kept = read_private(path)
    made = Identity(secrets.token_urlsafe(36), secrets.token_urlsafe(36), secrets.token_urlsafe(12))
    kept = {name: kept.get(name) for name in asdict(made)}
    return replace(
        made,
        **{name: value for name, value in kept.items() if type(value) is type(getattr(made, name)) and value != ""},
    )


def write_private(path: Path, content: dict[str, Any]) -> None:
    """Replace ``path`` by JSON that only its owner may read. A crash leaves the old file or the new one."""
    write_private_text(path, json.dumps(content, indent=2) + "\n")


def write_private_text(path: Path, text: str) -> None:
    """Replace ``path`` by a text that only its owner may read. A crash leaves the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_private(path: Path) -> dict[str, Any]:
    """Return the content of a private file; empty when it is missing or cannot be parsed."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
