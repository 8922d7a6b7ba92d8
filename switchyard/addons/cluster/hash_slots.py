"""Client of a cluster, and its hash slots: the node that holds a key, as the nodes report it.

A cluster spreads keys over 16,384 hash slots by the hash of the key's tag, the part in braces, and each of its masters
holds some of the slots. The map is read once, corrected by each ``MOVED``, and read anew from another node after a
failure, and where all masters are asked for after a ``MOVED``.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from switchyard.addons.cluster import ADDON
from switchyard.broker.errors import BrokerUnavailable, UnusableAddress
from switchyard.broker.redis.addresses import Absence, split_hosts
from switchyard.broker.redis.calls import Word, ask
from switchyard.broker.redis.connections import Client, Profile, client_of, lone_connection

Address = tuple[str, int]

SLOTS: Final = 16_384
# Of one node, which may hang while the others know better.
CONNECT_S: Final = 0.3
ANSWER_S: Final = 0.4
# After a failure many threads ask at once, and one answer serves all of them.
APART_S: Final = 0.05

# Redirections that are followed at once: more of them come from nodes that do not agree yet.
FOLLOWED_AT_ONCE: Final = 3
# Where the key stands in commands that have it elsewhere than in the first place.
KEY_AT: Final = {"EVAL": 3, "EVALSHA": 3, "XINFO": 2, "MEMORY": 2, "OBJECT": 2}
# Answers of a node that did nothing.
NOTHING_DONE: Final = (AskError, ClusterDownError, TryAgainError)
KEYLESS: Final = frozenset({"TIME", "INFO", "CONFIG", "PING", "SCAN", "CLIENT", "SCRIPT", "ROLE", "SLOWLOG", "DBSIZE",
                            "CLUSTER", "FLUSHDB", "FLUSHALL", "ACL", "COMMAND", "MONITOR"})  # fmt: skip


class NoSlots(redis.ConnectionError):
    """The nodes hold no hash slots, as before they are joined."""

    def __init__(self) -> None:
        super().__init__("no node of the cluster holds hash slots; join them with redis-cli --cluster create")


class HashSlotHalfMoved(BrokerUnavailable):
    """The keys of an operation are on two nodes of a cluster, as while a reshard moves them; this try did nothing.

    ``node`` is handing the hash slot over. ``outcome`` is for an operation that was sent before.
    """

    def __init__(self, operation: str, slot: int, node: str, *, outcome: str = "refused") -> None:
        self.slot, self.node = slot, node
        cause = f"hash slot {slot} is half moved away from node {node}"
        super().__init__(operation, cause, outcome=outcome, remedy=finish_the_move(node))


def finish_the_move(node: str) -> str:
    """Return the remedy for a hash slot that a node is handing over."""
    return f"wait while a reshard runs; after one that was interrupted, run `valkey-cli --cluster fix {node}`"


def key_of(words: Sequence[Any]) -> str | bytes | None:
    """Return the first key of a command, or ``None`` for one that any node may answer."""
    name = str(words[0])
    if name in KEYLESS or name.split()[0] in KEYLESS:
        return None
    place = KEY_AT.get(name, 1)
    key = words[place] if len(words) > place else None
    return key if isinstance(key, str | bytes) else None


def slot_of(key: str | bytes) -> int:
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def is_half_moved(error: Exception) -> bool:
    """Whether a node that is handing a hash slot over, or is being given it, does not have all keys of a call."""
    return isinstance(error, TryAgainError) or (isinstance(error, AskError) and not isinstance(error, MovedError))


def text_of(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


class HashSlots:
    """The masters of a cluster by hash slot, for all threads of a process; a fork goes on with a copy.

    The ``seeds`` are asked first, over a new ``connection`` to an address, with a time for each answer.
    """

    def __init__(self, seeds: Sequence[Address], connection: Callable[[Address, float], Any]) -> None:
        self._seeds = tuple(seeds)
        self._connection = connection
        self._owners: list[Address | None] = []
        self._nodes: tuple[Address, ...] = ()
        self._doubted: Address | None = None
        self._read_s = 0.0
        self._moved = False  # a slot, since the map was read

    def master_of(self, key: str | bytes | None) -> Address:
        """Return the address of the node that holds a key; of any master without one, not of the last that failed.

        Raises ``redis.ConnectionError`` where no node answers, or none holds the slot.
        """
        owners = self._owners or self.read()
        if key is None:
            masters = self.masters()
            return next((one for one in masters if one != self._doubted), masters[0])
        slot = slot_of(key)
        address = owners[slot]
        if address is None:
            raise redis.ConnectionError(f"hash slot {slot} is held by no node of the cluster")
        return address

    def masters(self) -> list[Address]:
        """Return the addresses of all nodes that hold slots. Raises ``redis.ConnectionError`` where none does.

        After a ``MOVED`` the map is read anew: it told of one slot, and its former master may hold none any more.
        """
        if self._moved:
            self.doubt(None)
        masters = {address for address in self._owners if address is not None}
        masters = masters or {address for address in self.read() if address is not None}
        if not masters:
            raise NoSlots
        return sorted(masters)

    def redirected(self, error: AskError, asked: Address) -> Address | None:
        """Learn from a ``MOVED``; return where to ask for once after an ``ASK``."""
        address = (error.host or asked[0], error.port)
        if not isinstance(error, MovedError):
            return address
        if self._owners:
            self._owners[error.slot_id] = address
            self._moved = True
        return None

    def doubt(self, address: Address | None) -> None:
        """Read the map anew after a failure of a node; keep the known one where no other node answers."""
        self._doubted = address or self._doubted
        if time.monotonic() - self._read_s < APART_S:
            return
        try:
            self.read(avoid=address)
        except redis.RedisError:
            self._read_s = time.monotonic()

    def read(self, *, avoid: Address | None = None) -> list[Address | None]:
        """Read the map from the first node that answers, asking last one that failed just now.

        Raises ``redis.ConnectionError`` where none answers.
        """
        self._read_s = time.monotonic()
        nodes = list(self._nodes)
        random.shuffle(nodes)  # one that is cut off from the others does not know of a failover
        candidates = dict.fromkeys([*nodes, *self._seeds])
        ordered = sorted(candidates, key=lambda address: address == avoid)
        error: redis.RedisError | None = None
        unjoined: Address | None = None
        for address in ordered:
            connection = self._connection(address, ANSWER_S)
            connection.socket_connect_timeout = CONNECT_S
            try:
                connection.connect()
                answer = ask(connection, ("CLUSTER", "SLOTS"), ANSWER_S)
            except redis.RedisError as failed:
                error = error or failed
                continue
            finally:
                connection.disconnect()
            if answer:
                return self._keep(answer, address)
            unjoined = unjoined or address  # it has left the cluster, or was never joined: others may know it
        if unjoined is not None:
            return self._keep((), unjoined)
        if isinstance(error, redis.ConnectionError | redis.TimeoutError):
            raise error
        raise redis.ConnectionError(str(error)) from error

    def _keep(self, answer: Sequence[Any], asked: Address) -> list[Address | None]:
        owners: list[Address | None] = [None] * SLOTS
        nodes: dict[Address, None] = {}
        for first, last, *served_by in answer:
            addresses = [_address(node, asked) for node in served_by]
            owners[first : last + 1] = [addresses[0]] * (last + 1 - first)
            nodes.update(dict.fromkeys(addresses))
        self._owners, self._nodes, self._moved = owners, tuple(nodes), False
        return owners


def _address(node: Sequence[Any], asked: Address) -> Address:
    host = str(node[0] or b"", "utf-8")  # empty: the address by which the node was asked
    return (asked[0] if host in ("", "?") else host), int(node[1])


class Asking:
    """A connection that sends ``ASKING`` before each command: the node answers for a slot that it is being given."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.send_packed_command = connection.send_packed_command
        self.can_read = connection.can_read
        self.disconnect = connection.disconnect

    def pack_command(self, *words: Word) -> list[bytes]:
        return [b"".join([*self._connection.pack_command("ASKING"), *self._connection.pack_command(*words)])]

    def pack_commands(self, commands: Sequence[Sequence[Word]]) -> list[bytes]:
        return [part for words in commands for part in self.pack_command(*words)]

    def read_response(self, **options: Any) -> Any:
        self._connection.read_response(**options)
        return self._connection.read_response(**options)


SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
DEFAULT_PORT: Final = 6379
TRIES: Final = 5
REMEDY: Final = "use for example redis+cluster://user:password@valkey-1:6379,valkey-2:6379,valkey-3:6379"


def split_cluster_url(url: str) -> tuple[str, list[Address]]:
    """Return the URL of the first node, and the addresses of all nodes that the URL names.

    Raises:
        UnusableAddress: a node has no name or no valid port, or a database is named: a cluster has one. It shows
            no node, since what looks like one may be a part of a password.
    """
    parts, hosts = split_hosts(url)
    login, at, _ = parts.netloc.rpartition("@")
    seeds = [_seed(host) for host in hosts]
    if parts.path.strip("/") not in ("", "0"):
        raise UnusableAddress(f"names database {parts.path.strip('/')}, and a cluster has database 0 only", REMEDY)
    host, port = seeds[0]
    netloc = f"{login}{at}{f'[{host}]' if ':' in host else host}:{port}"
    return urlunsplit((SCHEMES[parts.scheme], netloc, "", parts.query, "")), seeds


def hosts_of(url: str) -> set[str]:
    return {host for host, _ in split_cluster_url(url)[1]}


def _seed(text: str) -> Address:
    parts = urlsplit(f"//{text}")
    try:
        port = parts.port
    except ValueError:
        raise UnusableAddress("has a node whose port is not a number from 1 to 65535", REMEDY) from None
    if not parts.hostname:
        raise UnusableAddress("has a node without a name", REMEDY)
    return parts.hostname, port or DEFAULT_PORT


class ClusterClient(Client):
    """A client whose plain commands go to the node that holds their first key, or to any node without a key.

    :class:`switchyard.addons.cluster.calls.ClusterCalls` is the access with time budgets; this one serves probes and
    tests.
    """

    addon = ADDON
    slots: HashSlots
    node: Callable[[Address], Client]  # returns a client of one node, whose connections are closed by itself

    def servers(self) -> list[tuple[str, redis.Redis]]:
        return [(text_of(address), self.node(address)) for address in self.slots.masters()]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command to the node of its key, or to one that answers, and follow where the node sends it."""
        key, asked = key_of(args), None
        for left in reversed(range(TRIES)):
            address = asked or self.slots.master_of(key)
            with self.node(address) as node:
                try:
                    return _ask_once(node, args, options) if asked else node.execute_command(*args, **options)
                except AskError as error:
                    asked = self.slots.redirected(error, address)
                    if not left:
                        raise
                except (redis.ConnectionError, redis.TimeoutError):
                    self.slots.doubt(address)
                    if key is not None or not left:
                        raise
        raise AssertionError("the last try returns or raises")


def _ask_once(node: Client, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return the answer of a node that is being given the slot of a key."""
    with node.pipeline(transaction=False) as pipe:
        pipe.execute_command("ASKING")
        pipe.execute_command(*args, **options)
        return pipe.execute()[1]


def connect_cluster(url: str, *, profile: Profile = "normal", absence: Absence | None = None) -> ClusterClient:
    """Return the client of a cluster. Nothing is sent before the first command."""
    first, seeds = split_cluster_url(url)
    client = client_of(first, ClusterClient, profile=profile, absence=absence)
    pool = client.connection_pool

    def open_node(address: Address) -> Client:
        node = client_of(first, Client, profile=profile, absence=absence)
        node.connection_pool.connection_kwargs.update(host=address[0], port=address[1])
        return node

    client.node = open_node
    client.slots = HashSlots(seeds, lambda at, answer_s: lone_connection(pool, answer_s, host=at[0], port=at[1]))
    return client
