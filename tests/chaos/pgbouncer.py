"""A PgBouncer in transaction mode before a PostgreSQL under test."""

import shutil
import signal
import subprocess

import psycopg

from switchyard.embedded.server import free_port
from switchyard.workers.shared.fork import die_with_parent
from tests.chaos.postgres import DatabaseServer, PostgresUnderTest
from tests.waiting import wait_for

INI = """\
[databases]
* = host=127.0.0.1 port={server} user=yard
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
auth_file = users
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
ignore_startup_parameters = {ignored}
logfile =
pidfile =
"""
FOLDER_OF_DEBIAN = "/usr/sbin"


class PgBouncerUnderTest(DatabaseServer):
    """A PgBouncer on loopback. It passes clients of every database on to the same database of ``server``.

    It ends with the thread that starts it.

    Args:
        size: Connections to the server for each database; a client's next transaction may run on any of them.
        ignored: Start-up parameters that it accepts and ignores; by default it refuses unknown ones.
    """

    def __init__(self, server: PostgresUnderTest, *, size: int = 10, ignored: str = "") -> None:
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path=FOLDER_OF_DEBIAN)
        if program is None:
            raise RuntimeError("PgBouncer is not here; run: sudo apt install pgbouncer")
        self._program, self.port = program, free_port()
        settings = INI.format(server=server.port, port=self.port, size=size, ignored=ignored)
        self._make_folder("pgbouncer", users='"yard" ""\n', settings=settings)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; return when the server answers through it."""
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [self._program, self._folder / "settings"], stdout=log, stderr=log, cwd=self._folder,
                preexec_fn=die_with_parent(signal.SIGKILL), **self._as,
            )  # fmt: skip
        wait_for(self._answers, what="PgBouncer")

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def remove(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, autocommit=True, connect_timeout=5, prepare_threshold=None) as connection:
                return connection.execute("SELECT 1").fetchall() == [(1,)]
        except psycopg.OperationalError:
            return False
