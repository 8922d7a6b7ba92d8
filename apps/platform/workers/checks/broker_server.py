"""Mistakes in the broker's server: one that throws work away when it is full, or that keeps nothing."""

from __future__ import annotations

from typing import Any, cast

import redis
from django.core.checks import CheckMessage, Error, Warning

from broker.clients import connect

SAFE_POLICY = "noeviction"


def unsafe_server(url: str, *, debug: bool) -> list[CheckMessage]:
    """Ask the server whether it may lose work: E015, E016; W001 and W002 where it cannot be told.

    Answers within about two seconds, also when the server does not.

    Args:
        url: Address of the broker. Never shown: it may hold a password.
        debug: A server of a development machine may do without persistence.
    """
    client = connect(url, profile="quick")
    try:
        policy = _setting(client, "maxmemory-policy")
        append_only, snapshots = _setting(client, "appendonly"), _setting(client, "save")
    except (redis.ConnectionError, redis.TimeoutError) as error:
        return [_unreachable(error)]
    except redis.ResponseError as error:
        return [_unverified(error)]
    finally:
        client.close()
    return evicting(policy) + ([] if debug else forgetful(append_only, snapshots))


def evicting(policy: str) -> list[CheckMessage]:
    """E015: a server that makes room by dropping keys drops jobs and says nothing."""
    if policy == SAFE_POLICY:
        return []
    return [
        Error(
            f"maxmemory-policy is {policy!r}; when memory is full the server would delete waiting messages",
            hint=f"Set `maxmemory-policy {SAFE_POLICY}` in the server's configuration, "
            f"or run `CONFIG SET maxmemory-policy {SAFE_POLICY}`. Use another server for caches.",
            obj="broker",
            id="switchyard.E015",
        )
    ]


def forgetful(append_only: str, snapshots: str) -> list[CheckMessage]:
    """E016: a production server without append-only file; snapshots alone lose the minutes since the last one."""
    if append_only == "yes":
        return []
    kept = f"snapshots only (save {snapshots!r})" if snapshots else "nothing"
    return [
        Error(
            f"appendonly is {append_only!r}, so a restart of the server keeps {kept}",
            hint="Set `appendonly yes` and `appendfsync everysec` in the server's configuration.",
            obj="broker",
            id="switchyard.E016",
        )
    ]


def _setting(client: redis.Redis, name: str) -> str:
    found = cast("dict[str, Any]", client.config_get(name))
    return str(found.get(name, ""))


def _unreachable(error: Exception) -> CheckMessage:
    return Warning(
        f"the server does not answer ({type(error).__name__}); eviction and persistence were not checked",
        hint="Check SWITCHYARD_BROKER_URL and that the server is up.",
        obj="broker",
        id="switchyard.W001",
    )


def _unverified(error: Exception) -> CheckMessage:
    return Warning(
        f"the server refuses to show its settings ({str(error)[:80]}); eviction and persistence cannot be verified",
        hint=f"Allow this user `+config|get`, or make sure of `maxmemory-policy {SAFE_POLICY}` and `appendonly yes`.",
        obj="broker",
        id="switchyard.W002",
    )
