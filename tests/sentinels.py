"""Master, replica and three sentinels on loopback, for tests of ``redis+sentinel://``."""

import contextlib
import signal
import subprocess
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from switchyard.embedded.server import free_port
from switchyard.workers.shared.fork import die_with_parent
from tests.chaos.server import ServerUnderTest
from tests.tls import Authority
from tests.waiting import wait_for

NAME = "yard"
CONFIGURATION = """port {port}
bind 127.0.0.1
dir {folder}
logfile {folder}/sentinel.log
sentinel monitor {name} 127.0.0.1 {master} 2
sentinel down-after-milliseconds {name} {down_ms}
sentinel failover-timeout {name} 5000
sentinel parallel-syncs {name} 1
{more}
"""


class Sentinel:
    """One sentinel.

    Args:
        more: Further lines of its configuration.
    """

    def __init__(self, folder: Path, binary: Path, master: int, *, down_ms: int = 1_000, more: str = "") -> None:
        self.folder = folder
        self.port = next(port for port in iter(free_port, None) if str(port) not in more)  # one may be drawn twice
        folder.mkdir()
        file = folder / "sentinel.conf"
        file.write_text(
            CONFIGURATION.format(port=self.port, folder=folder, name=NAME, master=master, down_ms=down_ms, more=more)
        )
        self._process = subprocess.Popen(
            [str(binary), str(file), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )  # fmt: skip
        self.admin = redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0), socket_timeout=10, protocol=2)
        wait_for(self._answers, what="the sentinel answers")

    def state(self) -> dict[str, Any]:
        """Return what it knows of the master."""
        with contextlib.suppress(redis.RedisError):
            words = self.admin.execute_command("SENTINEL", "MASTER", NAME)
            return words if isinstance(words, dict) else _fields(words)
        return {}

    def _answers(self) -> bool:
        try:
            return bool(self.admin.ping())
        except redis.AuthenticationError:
            return True
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def close(self) -> None:
        self.admin.close()
        self._process.kill()
        self._process.wait()


class Watched:
    """Two servers of which one is the master, and the sentinels that decide which.

    Args:
        down_ms: Milliseconds of silence after which a sentinel calls a server down.
        authority: Servers and sentinels speak TLS with one another and with clients, by its certificates. Each listens
            without TLS as well, for the test.
    """

    def __init__(self, folder: Path, binary: Path, *, down_ms: int = 1_000, authority: Authority | None = None) -> None:
        self._folder, self._binary, self._down_ms, self._authority = folder, binary, down_ms, authority
        self.servers = [ServerUnderTest(folder / f"server{number}", binary) for number in (1, 2)]
        self.sentinels: list[Sentinel] = []
        self._tls_ports: dict[ServerUnderTest | Sentinel, int] = {}

    @property
    def url(self) -> str:
        return self.url_of(self.sentinels, "" if self._authority is None else f"?ssl_ca_certs={self._authority.file}")

    def url_of(self, sentinels: Sequence[Sentinel], query: str = "", *, plain: bool = False) -> str:
        """Return the address with some sentinels, at their ports without TLS where ``plain`` is set."""
        ports = [sentinel.port if plain else self.port_of(sentinel) for sentinel in sentinels]
        kind = "redis" if self._authority is None else "rediss"
        return f"{kind}+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}/{NAME}/0{query}"

    def port_of(self, process: ServerUnderTest | Sentinel) -> int:
        return self._tls_ports.get(process, process.port)

    @property
    def master(self) -> ServerUnderTest:
        """The server that the first sentinel calls the master."""
        return next(server for server in self.servers if self.port_of(server) == self.master_port())

    @property
    def replica(self) -> ServerUnderTest:
        return next(server for server in self.servers if self.port_of(server) != self.master_port())

    def master_port(self) -> int:
        return int(self.sentinels[0].state()["port"])

    def fail_over(self) -> None:
        """Have the sentinels make the replica the master, and wait until all of them say so."""
        before = self.master_port()
        wait_for(self._begin_failover, what="a replica that the first sentinel finds suitable")
        wait_for(lambda: all(int(s.state().get("port", before)) != before for s in self.sentinels))

    def _begin_failover(self) -> bool:
        try:
            self.sentinels[0].admin.execute_command("SENTINEL", "FAILOVER", NAME)
        except redis.ResponseError as error:
            if not str(error).startswith("NOGOODSLAVE"):  # its last answer is too old, on a busy machine
                raise
            return False
        return True

    def wait_until_settled(self) -> None:
        """Wait until each sentinel knows a master that is up, its replica in step, and the other sentinels."""
        wait_for(self.agree, what="sentinels agree")
        wait_for(lambda: self._in_step(), what="the replica is in step")

    def agree(self) -> bool:
        """Return whether each sentinel knows the same master, and none is about to replace it."""
        states = [sentinel.state() for sentinel in self.sentinels]
        return all(_settled(state) for state in states) and len({state["port"] for state in states}) == 1

    def _in_step(self) -> bool:
        try:
            found: Any = self.replica.admin.info("replication")
            return str(found["role"]) == "slave" and found["master_link_status"] == "up"
        except redis.RedisError:
            return False

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            master, replica = (opened.enter_context(server) for server in self.servers)
            for server in self.servers:
                server.config_set("repl-diskless-sync-delay", 0)
                if self._authority is not None:
                    self._tls_ports[server] = free_port()
                    directives = self._authority.directives(self._tls_ports[server])
                    server.admin.execute_command("CONFIG", "SET", *chain.from_iterable(directives.items()))
            replica.admin.execute_command("REPLICAOF", "127.0.0.1", str(self.port_of(master)))
            for number in range(3):
                sentinel = self._sentinel(number, self.port_of(master))
                opened.callback(sentinel.close)
                self.sentinels.append(sentinel)
            self.wait_until_settled()
            self._opened = opened.pop_all()
        return self

    def _sentinel(self, number: int, master: int) -> Sentinel:
        more, tls_port = "", free_port()
        if self._authority is not None:
            more = "\n".join(f"{name} {value}" for name, value in self._authority.directives(tls_port).items())
        folder = self._folder / f"sentinel{number}"
        sentinel = Sentinel(folder, self._binary, master, down_ms=self._down_ms, more=more)
        if more:
            self._tls_ports[sentinel] = tls_port
        return sentinel

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def _fields(words: list[bytes]) -> dict[str, str]:
    texts = [str(word, "utf-8") for word in words]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _settled(state: dict[str, Any]) -> bool:
    flags = state.get("flags", "")
    return flags == "master" and int(state["num-slaves"]) == 1 and int(state["num-other-sentinels"]) == 2
