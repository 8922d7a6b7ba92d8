"""Client of a cluster: its address, its slots, and plain commands that go to the node of their key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.exceptions import AskError

from switchyard.addons.cluster import ADDON
from switchyard.addons.cluster.hash_slots import Address, HashSlots, key_of, text_of
from switchyard.broker.errors import UnusableAddress
from switchyard.broker.redis.addresses import Absence, split_hosts
from switchyard.broker.redis.connections import Client, Profile, client_of, lone_connection

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
