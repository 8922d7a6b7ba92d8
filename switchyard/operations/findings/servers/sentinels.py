"""Checks of the sentinels of an address, and of the replicas of the master that they name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from switchyard.broker.health.sentinels import (
    ADDRESS,
    judge_replicas,
    judge_sentinels,
    most_known,
    read_sentinels,
    told,
)
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.sentinel import sentinels_of
from switchyard.broker.redis.sentinel_url import is_sentinel_url, parse
from switchyard.conf import switchyard_settings
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.servers.causes import CAUSES, GROUP


def look_at_sentinels() -> Iterator[Finding]:
    """Ask every sentinel of the address for the master, and the master for its replicas; neither has to answer."""
    url = switchyard_settings().broker_url
    named = switchyard_settings().server_variable
    if not is_sentinel_url(url):
        return
    states = read_sentinels(sentinels_of(parse(url)))
    replication = _replication(url)
    found = judge_sentinels(states)
    if replication is not None:
        found += judge_replicas(replication, most_known(states))
    if seen := told(states, replication):
        yield GROUP.ok(seen)
    for item in found:
        step = item.remedy.replace(ADDRESS, named)
        yield GROUP.finding(item.severity, item.code, item.seen, CAUSES[item.code][0], step)


def _replication(url: str) -> dict[str, Any] | None:
    client = connect(url, profile="quick")
    try:
        found: Any = client.info("replication")
        return dict(found)
    except redis.RedisError:  # away, which the server's own check reports; or an ACL user without INFO
        return None
    finally:
        client.close()
