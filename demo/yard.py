"""The demo's yard: everything that runs, started in order, described in ``credentials.json``, stopped in order."""

from __future__ import annotations

import os
import shutil
import socket
from typing import Any

from apps.platform.embedded.server import EmbeddedServer
from apps.platform.workers.shared.parent_death import adopt_orphans
from demo import environment, ports
from demo.broker_part import BrokerPart
from demo.credentials import Credentials
from demo.feed import Feed
from demo.identity import Identity
from demo.identity import load as load_identity
from demo.manager import ProcessManager
from demo.memory import proportional_bytes
from demo.readiness import PoolsWatch
from demo.state import StateFolder, StateLock
from demo.stopping import StopRequest
from demo.yard_parts import YardParts
from project.topology import YARD


class DemoYard:
    """One demo on one state folder.

    Args:
        web_port: Must be free; ``None`` takes the next one from ``first_port`` on.
        first_port: 0 asks for any free port.
        with_sample: Enqueue the sample work that starts later.
        with_reload: Start the pools again when code changes.
    """

    addresses: environment.Addresses
    identity: Identity
    pools: PoolsWatch
    _credentials: Credentials

    def __init__(
        self,
        state: StateFolder,
        *,
        feed: Feed,
        stop: StopRequest,
        web_port: int | None = None,
        first_port: int = 0,
        with_sample: bool = True,
        with_reload: bool = False,
    ) -> None:
        self.state = state
        self.feed = feed
        self.facts: dict[str, Any] = {}
        self._lock = StateLock(state)
        self._stop = stop
        self._ports = (web_port, first_port)
        self._with_sample, self._with_reload = with_sample, with_reload
        self._listeners: list[socket.socket] = []
        self._manager = ProcessManager(
            tell=feed.add, is_stopping=stop.is_stopping, is_in_a_hurry=stop.is_in_a_hurry, wait=stop.wait
        )

    def start(self) -> None:
        """Start every part and return when the web answers and every pool is up.

        Raises:
            DemoError: a part did not start, the folder or the port is in use, or somebody asked to stop.
                Whatever runs then goes on until :meth:`stop`.
        """
        self.state.make()
        self._lock.acquire(is_stopping=self._stop.is_stopping)
        shutil.rmtree(self.state.metrics)  # of processes that are gone
        self.state.make()
        kept = load_identity(self.state.identity)
        # No password, and the socket where the settings look by default: `manage.py` in another terminal finds it.
        broker = EmbeddedServer(
            self.state.broker, port=ports.free_again(kept.broker_port), socket_path=self.state.broker_socket
        )
        web, smtp, receiver = self._listen(kept)
        self._manager.start([BrokerPart(broker)])
        self.addresses = environment.Addresses(
            web_port=ports.port_of(web),
            smtp_port=ports.port_of(smtp),
            receiver_port=ports.port_of(receiver),
            broker_url=broker.url,
        )
        self.identity = kept.with_ports(
            broker=broker.port, smtp=self.addresses.smtp_port, receiver=self.addresses.receiver_port
        )
        self.identity.save(self.state.identity)
        self.pools = PoolsWatch(broker.url, YARD)
        parts = YardParts(
            self.state,
            environment.for_children(self.state, self.identity, self.addresses),
            self.addresses,
            self.pools,
            self._lock.fileno,
        )
        self._manager.start([parts.sidecars(smtp, receiver)])
        self.pools.expect_new()
        pools, scheduler, site = parts.pools(reload=self._with_reload), parts.scheduler(), parts.web(web)
        # Where the kernel gives us the orphans of a process, the parts are forked from one that has loaded Django.
        forked = [*([] if self._with_reload else [pools]), scheduler, site] if adopt_orphans() else []
        prepared = parts.set_up(self._manager, web, forked, with_sample=self._with_sample)
        self.facts = prepared["facts"]
        self._credentials = Credentials(
            url=self.addresses.site,
            username=prepared["username"],
            password=self.identity.admin_password,
            api_token=prepared["api_token"],
            broker_url=broker.url,
            database_url=environment.database_url(self.state),
            mail_dir_or_url=str(self.state.mailbox),
            pids={},
        )
        self._save_credentials()
        self._manager.start([pools], [scheduler, site])
        self._save_credentials()
        self._lock.announce(self.addresses.site)

    @property
    def token(self) -> str:
        """API token that may submit, read and operate."""
        return self._credentials.api_token

    @property
    def is_running(self) -> bool:
        """Whether any of its parts runs."""
        return bool(self._manager.pids)

    @property
    def memory_bytes(self) -> int:
        """Sum of the proportional set sizes of the demo and all its processes."""
        return proportional_bytes(os.getpid())

    def tend(self) -> None:
        """Start again what has died. Call it often."""
        if self._manager.tend():
            self._save_credentials()

    def stop(self) -> None:
        """Drain and end every process, the broker last, and give the folder back."""
        self._manager.stop()
        for listener in self._listeners:
            listener.close()
        self._lock.release()

    def _listen(self, kept: Identity) -> list[socket.socket]:
        web_port, first_port = self._ports
        web = ports.listen_near(first_port) if web_port is None else ports.listen(web_port)
        self._listeners.append(web)
        self._listeners.append(ports.listen_again(kept.smtp_port))
        self._listeners.append(ports.listen_again(kept.receiver_port))
        return self._listeners

    def _save_credentials(self) -> None:
        self._credentials = self._credentials.with_pids({"demo": os.getpid()} | self._manager.pids)
        self._credentials.save(self.state.credentials)
