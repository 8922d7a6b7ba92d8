"""A cluster of bundled Valkeys in memory that share all slots alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.server import MemoryServer
from switchyard.broker.redis.connections import connect
from switchyard.embedded.server import HOST, free_port

SLOTS = 16_384
START_TIMEOUT_S = 30.0


class _Node(MemoryServer):
    """One master."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bus_port = free_port()

    def _configuration(self) -> str:
        own = f"cluster-enabled yes\ncluster-port {self.bus_port}\ncluster-config-file nodes.conf\n"
        return f"{super()._configuration()}{own}"

    def ask(self, *words: Any) -> Any:
        with connect(self.url) as client:
            return client.execute_command(*words)


class MemoryCluster:
    """Masters without replicas.

    Args:
        folder: For the files of all of them.
        masters: Number of them.
    """

    def __init__(self, folder: Path, masters: int) -> None:
        self._nodes = [_Node(folder / str(number)) for number in range(masters)]
        self._open = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """Address for clients: all nodes."""
        return f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in self._nodes)}"

    @property
    def port(self) -> int:
        """Port of the first master."""
        return self._nodes[0].port

    def cpu_s(self) -> float:
        """Read the processor time of all masters together."""
        return sum(node.cpu_s() for node in self._nodes)

    def __enter__(self) -> MemoryCluster:
        with contextlib.ExitStack() as stack:
            for node in self._nodes:
                stack.enter_context(node)
            share = -(-SLOTS // len(self._nodes))
            for number, node in enumerate(self._nodes):
                node.ask("CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, SLOTS) - 1)
                node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for node in self._nodes[1:]:
                self._nodes[0].ask("CLUSTER", "MEET", HOST, node.port, node.bus_port)
            _until(lambda: all(self._is_whole(node) for node in self._nodes))
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _is_whole(self, node: _Node) -> bool:
        facts = node.ask("CLUSTER", "INFO")
        lines = facts if isinstance(facts, dict) else dict(line.split(":", 1) for line in str(facts, "ascii").split())
        known = int(lines["cluster_known_nodes"]) == len(self._nodes)
        return known and lines["cluster_state"] == "ok" and int(lines["cluster_slots_ok"]) == SLOTS


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the cluster is not whole within {START_TIMEOUT_S:g} s")
        time.sleep(0.05)
