"""A cluster under test: real nodes on loopback whose slots are moved, and that are killed and started again."""

import contextlib
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import redis

from switchyard.addons.cluster.hash_slots import SLOTS, slot_of
from switchyard.broker.redis.calls import RedisCalls, calls_on
from switchyard.broker.redis.connections import connect
from switchyard.workers.shared.fork import die_with_parent
from tests.chaos.server import connect_once, server_binary
from tests.tls import Authority
from tests.waiting import wait_for

HOST = "127.0.0.1"
NODE_TIMEOUT_MS = 1_000
# Keys that one MIGRATE moves.
MOVED_AT_ONCE = 100


class Node:
    """One server of a cluster.

    Args:
        folder: For its data, its log and what it knows of the others.
        authority: Signs its certificate: it then speaks TLS alone, to clients and to the other nodes.
    """

    def __init__(self, folder: Path, binary: Path, *options: str, authority: Authority | None = None) -> None:
        self.port, self.bus_port = _two_free_ports()
        self._authority = authority
        self.folder, self._binary, self._options = folder, binary, options
        self.id = ""
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def admin(self) -> redis.Redis:
        if self._authority is None:
            return connect_once(f"redis://{self.address}")
        return connect_once(f"rediss://{self.address}?ssl_ca_certs={self._authority.file}")

    def start(self) -> None:
        """Start it on its data and ports, and wait until it answers.

        Ports that were free may be another program's by now: a node that is new takes others then.
        """
        process = self._launch()
        while process.poll() is not None and not self.id:
            self.port, self.bus_port = _two_free_ports()
            process = self._launch()
        self.id = str(self.ask("CLUSTER", "MYID"), "ascii")

    def _launch(self) -> subprocess.Popen[bytes]:
        words = {
            "port": self.port, "bind": HOST, "dir": self.folder, "logfile": self.folder / "node.log",
            "cluster-enabled": "yes", "cluster-port": self.bus_port, "cluster-config-file": self.folder / "nodes.conf",
            "appendonly": "yes", "appendfsync": "always", "save": "", "repl-diskless-sync-delay": 0,
            "cluster-require-full-coverage": "no",
        }  # fmt: skip
        if self._authority is not None:
            words |= self._authority.directives(self.port) | {"port": 0, "tls-cluster": "yes"}
        command = [str(self._binary), *(str(word) for name, value in words.items() for word in (f"--{name}", value))]
        process = subprocess.Popen([*command, *self._options], preexec_fn=die_with_parent(signal.SIGKILL))
        self._process = process
        wait_for(lambda: process.poll() is not None or self.answers(), what=f"node {self.address} answers, or ends")
        return process

    def answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False

    def ask(self, *words: str | int | bytes) -> bytes:
        """Return its answer to a command, as it came."""
        with self.admin as client:
            connection = client.connection_pool.get_connection()
            try:
                connection.send_command(*words)
                return connection.read_response(disable_decoding=True)
            finally:
                connection.disconnect()

    def facts(self) -> dict[str, str]:
        return dict(line.split(":", 1) for line in str(self.ask("CLUSTER", "INFO"), "ascii").splitlines())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class ClusterUnderTest:
    """Masters that share all slots alike, each with some replicas.

    Args:
        folder: For all its nodes keep.
        masters: Number of them.
        replicas: Of each master.
        node_timeout_ms: Silence after which the others call a node dead; a busy machine keeps one silent for a second.
        binary: Of :func:`server_binary`; by default the embedded Valkey, which has no TLS.
        authority: Signs the certificates of all nodes, which then speak TLS alone.
    """

    def __init__(
        self, folder: Path, *, masters: int = 3, replicas: int = 0, node_timeout_ms: int = NODE_TIMEOUT_MS,
        binary: Path | None = None, authority: Authority | None = None,
    ) -> None:  # fmt: skip
        binary = binary or server_binary("valkey-server")
        self._scheme = "redis" if authority is None else "rediss"

        def node(name: str) -> Node:
            return Node(folder / name, binary, "--cluster-node-timeout", str(node_timeout_ms), authority=authority)

        self.masters = [node(f"master-{number}") for number in range(masters)]
        self.replicas = [node(f"replica-{number}") for number in range(masters * replicas)]

    @property
    def nodes(self) -> list[Node]:
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        return f"{self._scheme}+cluster://{','.join(node.address for node in self.nodes)}"

    def start(self) -> None:
        """Start the nodes, and return when each knows of all slots."""
        for node in self.nodes:
            node.start()
        share = -(-SLOTS // len(self.masters))
        for number, node in enumerate(self.masters):
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, SLOTS) - 1)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", HOST, node.port, node.bus_port)
        self.wait_until_whole()
        for number, replica in enumerate(self.replicas):
            replica.ask("CLUSTER", "REPLICATE", self.masters[number % len(self.masters)].id)
        for replica in self.replicas:
            wait_for(lambda node=replica: b"master_link_status:up" in node.ask("INFO", "replication"))

    def wait_until_whole(self) -> None:
        for node in self.nodes:
            wait_for(lambda node=node: self._is_whole(node), what=f"{node.address} knows the cluster")

    def _is_whole(self, node: Node) -> bool:
        facts = node.facts()
        whole = facts["cluster_state"] == "ok" and int(facts["cluster_slots_ok"]) == SLOTS
        return whole and int(facts["cluster_known_nodes"]) == len(self.nodes)

    def owner(self, key: str) -> Node:
        """Return the master that holds a key, as the first node that answers says."""
        found = (self._owner_by(node, slot_of(key)) for node in self.nodes if node.answers())
        owner = next((owner for owner in found if owner is not None), None)
        if owner is None:
            raise LookupError(f"no node holds {key}")
        return owner

    def _owner_by(self, node: Node, slot: int) -> Node | None:
        ranges: Any = node.ask("CLUSTER", "SLOTS")
        ports = (master[1] for first, last, master, *_ in ranges if first <= slot <= last)
        return next((one for port in ports for one in self.nodes if one.port == port), None)

    def wait_until_agreed(self, key: str, owner: Node) -> None:
        """Wait until every node names a master of a key: news of an earlier move may still be on their way."""
        wait_for(
            lambda: all(self._owner_by(node, slot_of(key)) is owner for node in self.nodes if node.answers()),
            what=f"all name {owner.address} for {key}",
        )

    def replica_of(self, master: Node) -> Node:
        followers = (node for node in self.nodes if node.answers())
        return next(node for node in followers if f"myself,slave {master.id} ".encode() in node.ask("CLUSTER", "NODES"))

    def another(self, than: Node) -> Node:
        return next(node for node in self.masters if node is not than and node.answers())

    def flush(self) -> None:
        for node in self.masters:
            with contextlib.suppress(redis.RedisError):
                node.ask("FLUSHALL")

    def move_at_once(self, key: str, target: Node) -> None:
        """Move the slot of a key as a whole, as Valkey 9 does, and return when all nodes know it."""
        slot, source = slot_of(key), self.owner(key)
        source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        wait_for(lambda: self.owner(key) is target, what=f"slot {slot} is on {target.address}")

    def keys_moved_one_by_one(self, key: str, target: Node) -> Iterator[int]:
        """Move the slot of a key key by key, as Redis does; yields between two steps, with the number of moved keys."""
        slot, source = slot_of(key), self.owner(key)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        moved = 0
        yield moved
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, MOVED_AT_ONCE):
            source.ask("MIGRATE", HOST, target.port, "", 0, 5_000, "KEYS", *keys)
            moved += len(keys)
            yield moved
        for node in (target, source, *self.masters):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def move_one_by_one(self, key: str, target: Node) -> int:
        """Move the slot of a key key by key; return how many keys there were."""
        return max(self.keys_moved_one_by_one(key, target))

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _two_free_ports() -> tuple[int, int]:
    with contextlib.ExitStack() as stack:
        ports = []
        while len(ports) < 2:
            candidate = random.randint(20_000, 45_000)
            with contextlib.suppress(OSError):
                stack.enter_context(socket.socket()).bind((HOST, candidate))
                ports.append(candidate)
    return ports[0], ports[1]


@contextlib.contextmanager
def own_cluster(folder: Path, **options: Any) -> Iterator[tuple[ClusterUnderTest, RedisCalls]]:
    """Start a cluster for the block, and give it with calls that wait for no node for long."""
    with (
        ClusterUnderTest(folder / "cluster", **options) as cluster,
        contextlib.closing(calls_on(connect(cluster.url, profile="quick"), budget_s=1.0)) as calls,
    ):
        yield cluster, calls
