"""The demo's yard: all its parts, started in order, described in ``credentials.json``, stopped in reverse order."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from typing import Any

from demo.addresses import (
    Addresses,
    as_exports,
    database_url,
    environment_for,
    free_again,
    listen,
    listen_again,
    listen_near,
    port_of,
)
from demo.hurry import HURRIED
from demo.identity import Credentials, Identity, write_private_text
from demo.identity import load as load_identity
from demo.manager import ProcessManager
from demo.parts import PoolsWatch, YardParts
from demo.processes import BrokerPart, proportional_bytes
from demo.state import StateFolder, StateLock
from demo.stopping import StopRequest
from switchyard.embedded.server import EmbeddedServer
from switchyard.workers.shared.parent_death import adopt_orphans


class DemoYard:
    """One demo on one state folder.

    Args:
        say: Called with each line about a part.
        web_port: Web port, which must be free; ``None`` takes the next free one from ``first_port`` on.
        first_port: 0 takes any free port.
        with_sample: Enqueue the delayed newsletters.
        with_reload: Restart the pools when code changes.
    """

    addresses: Addresses
    identity: Identity
    pools: PoolsWatch
    _credentials: Credentials

    def __init__(
        self,
        state: StateFolder,
        *,
        say: Callable[[str], object],
        stop: StopRequest,
        web_port: int | None = None,
        first_port: int = 0,
        with_sample: bool = True,
        with_reload: bool = False,
    ) -> None:
        self.state = state
        self.facts: dict[str, Any] = {}
        self._lock = StateLock(state)
        self._stop = stop
        self._ports = (web_port, first_port)
        self._with_sample, self._with_reload = with_sample, with_reload
        self._listeners: list[socket.socket] = []
        self._manager = ProcessManager(
            report=say, is_stopping=stop.is_stopping, is_forced=stop.is_forced, wait=stop.wait
        )

    def start(self) -> None:
        """Start every part and return when the web answers and every pool is up.

        Raises:
            DemoError: a part did not start, the folder or the port is in use, or a stop was requested.
                Parts that run by then keep running until :meth:`stop`.
        """
        self.state.make()
        self._lock.acquire(is_stopping=self._stop.is_stopping)
        shutil.rmtree(self.state.metrics)  # files of processes that have ended
        self.state.make()
        kept = load_identity(self.state.identity)
        # No password, and the socket at the settings' default, so that `manage.py` in another terminal finds it.
        broker = EmbeddedServer(
            self.state.broker, port=free_again(kept.broker_port), socket_path=self.state.broker_socket
        )
        web, smtp, receiver = self._listen(kept)
        self._manager.start([BrokerPart(broker)])
        self.addresses = Addresses(
            web_port=port_of(web),
            smtp_port=port_of(smtp),
            receiver_port=port_of(receiver),
            broker_url=broker.url,
        )
        self.identity = kept.with_ports(
            broker=broker.port, smtp=self.addresses.smtp_port, receiver=self.addresses.receiver_port
        )
        self.identity.save(self.state.identity)
        self.pools = PoolsWatch(broker.url, HURRIED)
        parts = YardParts(
            self.state,
            environment_for(self.state, self.identity, self.addresses),
            self.addresses,
            self.pools,
            self._lock.fileno,
        )
        commands = as_exports(environment_for(self.state, self.identity, self.addresses, base={}))
        write_private_text(self.state.environment, commands)
        self._manager.start([parts.sidecars(smtp, receiver)])
        self.pools.expect_new()
        pools, scheduler, site = parts.pools(reload=self._with_reload), parts.scheduler(), parts.web(web)
        history = parts.history()
        # Where this process can adopt orphans (Linux), set-up forks the parts after it has loaded Django.
        forked = [*([] if self._with_reload else [pools]), history, scheduler, site] if adopt_orphans() else []
        prepared = parts.set_up(self._manager, web, forked, with_sample=self._with_sample)
        self.facts = prepared["facts"]
        self._credentials = Credentials(
            url=self.addresses.site,
            username=prepared["username"],
            password=self.identity.admin_password,
            api_token=prepared["api_token"],
            broker_url=broker.url,
            database_url=database_url(self.state),
            mail_dir_or_url=str(self.state.mailbox),
            pids={},
        )
        self._save_credentials()
        # Stopped in reverse: the writer outlasts the pools, and writes what they finish while they drain.
        self._manager.start([history], [pools], [scheduler, site])
        self._save_credentials()
        self._lock.announce(self.addresses.site)

    @property
    def token(self) -> str:
        """API token that may submit, read and operate."""
        return self._credentials.api_token

    @property
    def is_running(self) -> bool:
        """Whether any part runs."""
        return bool(self._manager.pids)

    @property
    def memory_bytes(self) -> int:
        """Sum of the proportional set sizes of the demo and all its processes."""
        return proportional_bytes(os.getpid())

    def restart_dead(self) -> None:
        """Restart the parts that have died. Call it several times a second."""
        if self._manager.restart_dead():
            self._save_credentials()

    def stop(self) -> None:
        """Drain and stop every part, the broker last, and release the state folder."""
        self._manager.stop()
        for listener in self._listeners:
            listener.close()
        self._lock.release()

    def _listen(self, kept: Identity) -> list[socket.socket]:
        web_port, first_port = self._ports
        web = listen_near(first_port) if web_port is None else listen(web_port)
        self._listeners.append(web)
        self._listeners.append(listen_again(kept.smtp_port))
        self._listeners.append(listen_again(kept.receiver_port))
        return self._listeners

    def _save_credentials(self) -> None:
        self._credentials = self._credentials.with_pids({"demo": os.getpid()} | self._manager.pids)
        self._credentials.save(self.state.credentials)
