"""A real RabbitMQ server for tests, started without root, in a folder of its own; and yards on it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pika
import psutil

from switchyard.addons.rabbitmq.broker import on_rabbitmq
from switchyard.wiring import build_yard

INSTALLED = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
START_S = 150.0


class RabbitServer:
    """A node on loopback ports. epmd, which the node starts beside it, ends with it.

    Args:
        folder: For its data; kept from start to start.
        consumer_timeout_s: As the server's setting; tests have it checked every second.
        certificate: Files of the authority, of a certificate and of its key: the node then also takes TLS.
        beside: A node that was started before; this one joins its cluster when it starts for the first time.
        rights: User, whose password is its name -> its rights to configure, write and read. The user ``guest`` has all.
        asks: Over TLS it asks clients for a certificate.
    """

    def __init__(
        self, folder: Path, *, consumer_timeout_s: int = 1_800, certificate: tuple[Path, Path, Path] | None = None,
        beside: RabbitServer | None = None, rights: Mapping[str, tuple[str, str, str]] | None = None,
        asks: bool = False,
    ) -> None:  # fmt: skip
        self._rights, self._asks = rights, asks
        self.folder, self._beside = folder, beside
        self.port, self._dist, self._epmd, self.secure_port = _free_ports(4)
        if beside is not None:
            self._epmd = beside._epmd
        self._certificate = certificate
        self._consumer_timeout_s = consumer_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return f"yard{self.port}@localhost"

    @property
    def secure_url(self) -> str:
        return f"amqps://guest:guest@127.0.0.1:{self.secure_port}/"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> RabbitServer:
        """Start the node, and wait until a login succeeds."""
        self._configure()
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [_program()], env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )
        give_up_s = time.monotonic() + START_S
        while True:
            try:
                pika.BlockingConnection(pika.URLParameters(self.url)).close()
                return self
            except (pika.exceptions.AMQPError, OSError) as error:
                if time.monotonic() > give_up_s or self._process.poll() is not None:
                    tail = (self.folder / "log.txt").read_text()[-2_000:]
                    self.stop()
                    raise AssertionError(f"rabbitmq-server is not up: {error!r}\n{tail}") from error
                time.sleep(0.1)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the node and epmd, and remove the data."""
        self._end(signal.SIGKILL)
        for process in psutil.process_iter(["name", "environ"]):
            with contextlib.suppress(psutil.Error):
                if process.info["name"] == "epmd" and (process.info["environ"] or {}).get("ERL_EPMD_PORT") == str(
                    self._epmd
                ):
                    process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _node(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        try:
            top = psutil.Process(self._process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _end(self, signum: int) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signum)
        self._process.wait(10)
        self._process = None

    def _configure(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
            f"consumer_timeout = {self._consumer_timeout_s * 1000}\n"
            "disk_free_limit.absolute = 50MB\nvm_memory_high_watermark.absolute = 512MB\n"
            + self._tls()
            + self._join()
            + self._users()
        )
        (self.folder / "enabled_plugins").write_text("[].")
        (self.folder / "advanced.config").write_text(
            "[{kernel,[{inet_dist_use_interface,{127,0,0,1}}]},{rabbit,[{channel_tick_interval,1000}]}]."
        )

    def _join(self) -> str:
        if self._beside is None:
            return ""
        cookie = ".erlang.cookie"
        if not (self.folder / cookie).exists():
            shutil.copy(self._beside.folder / cookie, self.folder / cookie)  # with its mode, which Erlang asks for
        return (
            "cluster_formation.peer_discovery_backend = classic_config\n"
            f"cluster_formation.classic_config.nodes.1 = {self._beside.name}\n"
            f"cluster_formation.classic_config.nodes.2 = {self.name}\n"
        )

    def _users(self) -> str:
        if self._rights is None:
            return ""
        rights = {"guest": (".*",) * 3, **self._rights}
        users = [{"name": name, "password_hash": _hashed(name), "tags": "administrator"} for name in rights]
        granted = [
            {"user": name, "vhost": "/", "configure": configure, "write": write, "read": read}
            for name, (configure, write, read) in rights.items()
        ]
        file = self.folder / "definitions.json"
        file.write_text(json.dumps({"users": users, "vhosts": [{"name": "/"}], "permissions": granted}))
        return f"load_definitions = {file}\n"

    def _tls(self) -> str:
        if self._certificate is None:
            return ""
        authority, file, key = self._certificate
        return (
            f"listeners.ssl.1 = 127.0.0.1:{self.secure_port}\n"
            f"ssl_options.cacertfile = {authority}\nssl_options.certfile = {file}\nssl_options.keyfile = {key}\n"
            f"ssl_options.verify = {'verify_peer' if self._asks else 'verify_none'}\n"
            f"ssl_options.fail_if_no_peer_cert = {'true' if self._asks else 'false'}\n"
        )

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            **os.environ, "HOME": str(folder), "ERL_EPMD_PORT": str(self._epmd), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_BYTES": "0", "RABBITMQ_NODENAME": self.name, "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"), "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }  # fmt: skip


def _hashed(password: str) -> str:
    salt = b"salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _program() -> str:
    """Return the server's program: unpacked by bin/test, or installed. Those in /usr/sbin want root."""
    found = shutil.which("rabbitmq-server-unpacked") or (str(INSTALLED) if INSTALLED.exists() else None)
    if found is None:
        raise AssertionError("rabbitmq-server is missing; run bin/test, or: sudo apt install rabbitmq-server")
    return found


def _free_ports(count: int) -> list[int]:
    """Return ports that nothing uses, below those of outgoing connections, which come while a node boots."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", random.randint(10_000, 30_000)))
                found.append(one.getsockname()[1])
    return found


def build_rabbit_yard(*arguments: Any, **options: Any) -> Any:
    """Return the broker of a yard whose messages are on RabbitMQ, see :func:`switchyard.wiring.build_yard`."""
    return build_yard(*arguments, place=on_rabbitmq, **options)


def settings_of(url: str, *, queue_type: str = "quorum", consumer_timeout_s: int = 1_800) -> dict[str, Any]:
    """Return the library's settings that name such a server."""
    return {"place_url": url, "place_options": {"queue_type": queue_type, "consumer_timeout_s": consumer_timeout_s}}
