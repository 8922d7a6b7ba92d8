"""Connections to the Redis or Valkey server: one factory, three profiles.

redis-py 8 retries ten times by default and abandons a blocking read after its socket timeout, which may lose what
was popped; so nothing here uses its defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

Profile = Literal["quick", "normal", "blocking"]


def options(profile: Profile) -> dict[str, Any]:
    """Return the connection options of a profile, for the plain and the asyncio client alike.

    ``quick`` answers or fails within a second (health checks, reports). ``normal`` rides out a restart of the
    server's connections, and gives up after 3 s on a server that hangs. ``blocking`` waits as long as the command
    says and never repeats it.
    """
    if profile == "quick":
        return {"socket_timeout": 1.0, "socket_connect_timeout": 1.0, "protocol": 2}
    if profile == "normal":
        return {"socket_timeout": 3.0, "socket_connect_timeout": 2.0, "protocol": 2, "health_check_interval": 30}
    return {"socket_timeout": None, "socket_connect_timeout": 2.0, "protocol": 2}


@dataclass(frozen=True, slots=True)
class Absence:
    """Words for the error where nothing listens at an address.

    Args:
        fact: Instead of the client's message; "" keeps that.
        remedy: The next step.
    """

    fact: str = ""
    remedy: str = ""


class Client(redis.Redis):
    """A client with the words for a server that is not there."""

    absence = Absence()


def connect(url: str, *, profile: Profile = "normal", absence: Absence | None = None) -> Client:
    """Return a client. Nothing is sent before the first command.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        absence: Words for an address at which nothing listens.
    """
    if profile == "normal":
        # A refused or broken connection is tried again. A timeout is not: each try would cost as much once more.
        retry = Retry(ExponentialBackoff(cap=0.2, base=0.02), 2, supported_errors=(redis.ConnectionError,))
    else:
        retry = Retry(NoBackoff(), 0)
    client: Client = Client.from_url(url, retry=retry, **options(profile))  # type: ignore[assignment]
    client.absence = absence or client.absence
    return client
