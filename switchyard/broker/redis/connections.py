"""Connections to the Redis or Valkey server: one factory, two profiles.

redis-py 8 retries ten times by default and abandons a blocking read after its socket timeout, which may lose what
was popped; so nothing here uses its defaults.
"""

from typing import Any, Final, Literal, TypeVar

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import ConnectionPool
from redis.retry import Retry

from switchyard.addon import Addon, addon_for
from switchyard.broker.redis.addresses import SCHEMES, Absence
from switchyard.broker.redis.sentinel import NAMELESS, pool_options

Profile = Literal["quick", "normal"]
OWN_SCHEMES = ("redis", "rediss", "unix", *SCHEMES)
# ``quick`` answers or fails within a second (health checks, reports). ``normal`` rides out a restart of the server's
# connections, and gives up after 3 s on a server that hangs.
TIMES: Final[dict[Profile, dict[str, Any]]] = {
    "quick": {"socket_timeout": 1.0, "socket_connect_timeout": 1.0},
    "normal": {"socket_timeout": 3.0, "socket_connect_timeout": 2.0, "health_check_interval": 30},
}


class Client(redis.Redis):
    """A client with the words for a server that is not there, and the add-on that made it."""

    absence = Absence()
    addon: Addon | None = None

    def servers(self) -> list[tuple[str, redis.Redis]]:
        """Return a client of each server that holds keys, by its place; "" and itself for the only one.

        Raises ``redis.ConnectionError`` when no server answers.
        """
        return [("", self)]


T = TypeVar("T", bound=Client)


def connect(url: str, *, profile: Profile = "normal", absence: Absence | None = None) -> Client:
    """Return a client. Nothing is sent before the first command. ``UnusableAddress`` when the address lacks a part.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; ``redis+sentinel://`` or ``rediss+sentinel://`` for the master
            that sentinels name; or one whose scheme an add-on takes over.
        absence: Text of the error when nothing listens at the address.
    """
    scheme = url.partition("://")[0].lower()
    addon = None if scheme in OWN_SCHEMES else addon_for(scheme)
    if addon is not None and (opened := addon.load("connect")):
        client: Client = opened(url, profile=profile, absence=absence)
        return client
    return client_of(url, Client, profile=profile, absence=absence)


def client_of(url: str, kind: type[T], *, profile: Profile, absence: Absence | None) -> T:
    if profile == "normal":
        # A refused or broken connection is tried again. A timeout is not: each try would cost as much once more.
        retry = Retry(ExponentialBackoff(cap=0.2, base=0.02), 2, supported_errors=(redis.ConnectionError,))
    else:
        retry = Retry(NoBackoff(), 0)
    url, following = pool_options(url)
    options = {**TIMES[profile], "protocol": 2, **NAMELESS, **following}
    client: T = kind.from_url(url, retry=retry, **options)  # type: ignore[assignment]
    client.absence = absence or client.absence
    return client


def lone_connection(pool: ConnectionPool, timeout_s: float, **place: Any) -> Any:
    """Return a new connection that no pool counts (a pool refuses more than 100), without retries; nothing is sent yet.

    It has the pool's options but ``place``, such as ``host`` and ``port`` of another server, and gives an answer up
    after ``timeout_s``.
    """
    connection: Any = pool.connection_class(**{**pool.connection_kwargs, **place})
    connection.retry = Retry(NoBackoff(), 0)
    connection.socket_timeout = timeout_s
    return connection
