"""A PostgreSQL under test: it is stopped, started again, and its connections are cut."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg

from benchmarks.postgres import postgres_account, provide
from switchyard.embedded.server import free_port
from switchyard.workers.shared.fork import die_with_parent
from tests.waiting import wait_for

# Of the default 100 the slots of the webhooks' two pools alone take 96. All processes of the yard may open 314.
CONNECTIONS = 340


class DatabaseServer:
    """A server on loopback, which starts and ends with a block."""

    port: int

    def _make_folder(self, name: str, **files: str) -> None:
        """Make a folder with files, for the account that the server runs as."""
        self._folder, found = Path(tempfile.mkdtemp(prefix=f"switchyard-{name}-")), postgres_account()
        for file, text in files.items():
            (self._folder / file).write_text(text)
        self._as: dict[str, Any] = {}
        if found:
            self._as = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
            for path in (self._folder, *self._folder.iterdir()):
                os.chown(path, found.pw_uid, found.pw_gid)

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://yard@127.0.0.1:{self.port}/{database}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class PostgresUnderTest(DatabaseServer):
    """A server on loopback with an empty database. Port and data stay over :meth:`stop` and :meth:`start`.

    It ends with the thread that starts it.

    Args:
        network: Addresses whose clients it admits as well, as ``10.0.0.0/8``.
        connections: Its ``max_connections``; PostgreSQL's own default is 100.
    """

    def __init__(self, network: str = "", *, connections: int = CONNECTIONS) -> None:
        self._connections = connections
        self._programs = provide()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._make_folder("postgres")
        subprocess.run(
            [self._programs / "initdb", "-D", self._folder / "data", "-U", "yard", "-A", "trust", "--no-sync"],
            capture_output=True, check=True, cwd=self._folder, **self._as,
        )  # fmt: skip
        self._listens = "*" if network else "localhost"
        if network:
            with (self._folder / "data/pg_hba.conf").open("a") as file:
                file.write(f"host all all {network} trust\n")

    def start(self) -> None:
        """Start it on its data; return when it answers."""
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._folder / "data", "-p", str(self.port),
                 "-c", f"unix_socket_directories={self._folder}", "-c", "fsync=off",
                 "-c", f"listen_addresses={self._listens}", "-c", f"max_connections={self._connections}"],
                stdout=log, stderr=log, cwd=self._folder, preexec_fn=die_with_parent(signal.SIGQUIT), **self._as,
            )  # fmt: skip
        wait_for(self._answers, what="PostgreSQL")

    def stop(self) -> None:
        """Stop it at once: every connection is closed, and new ones are refused."""
        if self._process:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)

    def kill(self) -> None:
        """Kill it without warning, as a machine that fails does: its data are recovered from the log at the next start.

        Its backends notice and end by themselves; a server that starts before the last one has ended refuses the data.
        """
        backends = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait(30)
        _, alive = psutil.wait_procs(backends, timeout=30)
        assert not alive, f"backends outlived their server: {alive}"

    def runs(self) -> bool:
        return bool(self._process) and self._process.poll() is None

    def signal(self, signum: int) -> None:
        self._process.send_signal(signum)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop all its processes with SIGSTOP for the block: connections stay open, nothing is answered."""
        server = psutil.Process(self._process.pid)
        server.suspend()  # first, so that it starts no further ones
        members = [server, *server.children(recursive=True)]
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.suspend()
        try:
            yield
        finally:
            for member in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.resume()

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def cut_connections(self) -> int:
        return len(
            self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        )

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return self.execute("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False
