"""Temporary PostgreSQL with default settings, for the one peer that needs it."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from switchyard.embedded.server import free_port
from switchyard.workers.shared.fork import die_with_parent

START_TIMEOUT_S = 30.0


class NoPostgres(Exception):
    """This machine has no PostgreSQL, and none could be installed."""


def provide() -> Path:
    """Return the folder with PostgreSQL's programs, installing Debian's package when that is allowed.

    Raises:
        NoPostgres: there is none and it could not be installed.
    """
    found = _programs()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "postgresql"]):
            subprocess.run(command, capture_output=True, timeout=600, check=False)
        found = _programs()
    if found is None:
        raise NoPostgres("PostgreSQL is not here; run: sudo apt install postgresql")
    return found


@contextlib.contextmanager
def temporary() -> Iterator[str]:
    """Run a server with an empty database and yield its URL.

    Raises:
        NoPostgres: it did not start.
    """
    programs, port = provide(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="switchyard-bench-postgres-"))
    data, log = folder / "data", folder / "log"
    account = postgres_account()
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    server = None
    try:
        made = subprocess.run(
            [programs / "initdb", "-D", data, "-U", "bench", "-A", "trust", "--no-sync"],
            capture_output=True, text=True, check=False, cwd=folder, **user,
        )  # fmt: skip
        if made.returncode != 0:
            raise NoPostgres(f"initdb ended with {made.returncode}: {made.stderr.strip()[-200:]}")
        with log.open("w") as output:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-p", str(port), "-c", f"unix_socket_directories={folder}"],
                stdout=output, stderr=output, cwd=folder, preexec_fn=die_with_parent(signal.SIGINT), **user,
            )  # fmt: skip
        _wait_until_ready(server, log)
        yield f"postgresql://bench@127.0.0.1:{port}/postgres"
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)
            server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while "ready to accept connections" not in log.read_text():
        if server.poll() is not None or time.monotonic() > deadline:
            raise NoPostgres(f"it did not start: {log.read_text()[-300:]}")
        time.sleep(0.05)


def _programs() -> Path | None:
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def postgres_account() -> pwd.struct_passwd | None:
    """Return the account to run it as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        raise NoPostgres("there is no account postgres, and PostgreSQL does not run as root") from None
