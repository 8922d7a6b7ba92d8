"""Client of a cluster: its address, its slots, and plain commands that go to the node of their key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.exceptions import AskError

from broker.errors import SwitchyardError
from broker.redis.connections import Absence, Client, Profile, client_of, lone_connection
from broker.redis.hash_slots import Address, HashSlots, key_of

SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
DEFAULT_PORT: Final = 6379
TRIES: Final = 5


class InvalidClusterUrl(SwitchyardError, ValueError):
    """An address of a cluster cannot be used."""

    def __init__(self, fact: str) -> None:
        example = "redis+cluster://user:password@valkey-1:6379,valkey-2:6379,valkey-3:6379"
        super().__init__(f"the address of the cluster {fact}; write for example {example}")


def is_cluster(url: str) -> bool:
    """Return whether a URL is the address of a cluster."""
    return url.partition("://")[0] in SCHEMES


def split_cluster_url(url: str) -> tuple[str, list[Address]]:
    """Return the URL of the first node, and the addresses of all nodes that the URL names.

    Raises:
        InvalidClusterUrl: a node has no name or no valid port, or a database is named: a cluster has one.
    """
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    seeds = [_seed(host) for host in hosts.split(",")]
    if parts.path.strip("/") not in ("", "0"):
        raise InvalidClusterUrl(f"names database {parts.path.strip('/')}, and a cluster has database 0 only")
    host, port = seeds[0]
    netloc = f"{login}{at}{f'[{host}]' if ':' in host else host}:{port}"
    return urlunsplit((SCHEMES[parts.scheme], netloc, "", parts.query, "")), seeds


def _seed(text: str) -> Address:
    parts = urlsplit(f"//{text}")
    try:
        port = parts.port
    except ValueError:
        raise InvalidClusterUrl(f"has {text!r}, whose port is no number from 1 to 65535") from None
    if not parts.hostname:
        raise InvalidClusterUrl(f"has a node without a name ({text!r})")
    return parts.hostname, port or DEFAULT_PORT


class ClusterClient(Client):
    """A client whose plain commands go to the node that holds their first key, or to any node without a key.

    :class:`broker.redis.cluster.ClusterCalls` is the access with time budgets; this one serves probes and tests.
    """

    slots: HashSlots
    open_node: Callable[[Address], Client]

    def node(self, address: Address) -> Client:
        """Return a client of one node. Its connections are closed by itself."""
        return self.open_node(address)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command to the node of its key, and follow where the node sends it."""
        for left in reversed(range(TRIES)):
            address = self.slots.master_of(key_of(args))
            with self.node(address) as node:
                try:
                    return node.execute_command(*args, **options)
                except AskError as error:  # a slot that moves: it is the new node's soon
                    self.slots.redirected(error, address)
                    if not left:
                        raise
                except redis.ConnectionError:
                    self.slots.doubt(address)
                    raise
        raise AssertionError("the last try returns or raises")

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        """Return a pipeline of one node, for commands without a key."""
        return self.node(self.slots.master_of(None)).pipeline(transaction=transaction, shard_hint=shard_hint)


def connect_cluster(url: str, *, profile: Profile = "normal", absence: Absence | None = None) -> ClusterClient:
    """Return the client of a cluster. Nothing is sent before the first command.

    Args:
        url: ``redis+cluster://`` or ``rediss+cluster://``, with one node or more, parted by commas.

    Raises:
        InvalidClusterUrl: the URL cannot be used.
    """
    first, seeds = split_cluster_url(url)
    client = client_of(first, ClusterClient, profile=profile, absence=absence)
    pool = client.connection_pool

    def open_node(address: Address) -> Client:
        node = client_of(first, Client, profile=profile, absence=absence)
        node.connection_pool.connection_kwargs.update(host=address[0], port=address[1])
        return node

    client.open_node = open_node
    client.slots = HashSlots(seeds, lambda at, answer_s: lone_connection(pool, answer_s, host=at[0], port=at[1]))
    return client
