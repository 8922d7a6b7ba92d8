"""Checks of the broker's servers, mostly one, of the sentinels of its address, and of their master's replicas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import redis

from switchyard.broker.errors import BrokerError
from switchyard.broker.health.keyspace_id import ACCEPT
from switchyard.broker.health.sentinels import (
    ADDRESS,
    judge_replicas,
    judge_sentinels,
    most_known,
    read_sentinels,
    told,
)
from switchyard.broker.health.servers import ServerLook, Servers, servers_of
from switchyard.broker.redis.access import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.sentinel import sentinels_of
from switchyard.broker.redis.sentinel_url import is_sentinel_url, parse
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.servers import node
from switchyard.operations.findings.servers.causes import CAUSES, GROUP, cause_of
from switchyard.operations.server_state import read_server_state


def look_at_servers() -> Iterator[Finding]:
    """Check the servers.

    Raises:
        BrokerError: no server answers.
    """
    client = connect(switchyard_settings().broker_url, profile="quick")
    keys, calls = declared_yard().keys, calls_on(client, budget_s=1.0)
    servers = servers_of(calls, keys, [queue.name for queue in declared_yard().queues])
    try:
        client.ping()
        looks = servers.read(production=True, away=servers.away())
        yield from _state(servers, looks)
        answering = {look.place: look for look in looks if look.facts is not None}
        clients = [(place, server) for place, server in client.servers() if place in answering]
        for place, server in clients:
            yield from _at(place, node.minor_defects(server))
        yield from _markers(servers, set(answering))
        for place, server in clients:
            yield from _at(place, [node.latency(server), node.clock(server), *node.slow_log(server, keys)])
        if calls.addon is not None and (look := calls.addon.load("look_at")):
            yield from look(servers, clients)
    finally:
        calls.close()
        client.close()


def look_at_addons() -> Iterator[Finding]:
    """Check the servers of add-ons that the settings name."""
    for addon in switchyard_settings().addons:
        yield from addon.call("look", ())


def _state(servers: Servers, looks: list[ServerLook]) -> Iterator[Finding]:
    state = read_server_state(servers.calls, servers.keys)
    if state.refusal:
        seen = f"it accepts no work: {state.refusal}"
        yield GROUP.error("takes_no_work", seen, "The server refuses writes", state.remedy)
    found = list(state.findings) + [item for item in servers.findings(looks) if item.code == "unverified"]
    for item in found:
        cause, command = cause_of(item.code)
        yield GROUP.finding(item.severity, item.code, item.seen, cause, command or item.remedy)
    for each in looks:
        if each.facts is not None:
            yield from _at(each.place, [node.described(each.facts)])


def _at(place: str, found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings with the node that they are about, where there are several."""
    for item in found:
        yield replace(item, seen=f"node {place}: {item.seen}") if place else item


def _markers(servers: Servers, answering: set[str]) -> Iterator[Finding]:
    """Report whether the loss of each queue's keys would be noticed."""
    calls, keys = servers.calls, servers.keys
    of_queue = {queue: servers.marker_of(queue) for queue in servers.queues}
    missed = {marker: missed for marker, missed in servers.marks() if servers.place_of(marker) in answering}
    found = calls.pipeline([("HGET", marker, "id") for marker in missed], raise_errors=False)
    if any(isinstance(id_, BrokerError) for id_ in found):
        return  # reported above: a replica without its primary, or a key of another type
    ids = {name: str(id_, "utf-8", "replace")[:8] for name, id_ in zip(missed, found, strict=True) if id_ is not None}
    # A marker that a process misses was there and is gone, which is reported above.
    known = calls.pipeline([("EXISTS", name) for name in missed.values()])
    gone = {name for name, there in zip(missed, known, strict=True) if there}
    bare = [queue for queue, name in of_queue.items() if name in missed and name not in ids and name not in gone]
    if not bare and not gone:
        yield GROUP.ok(f"keyspace {' '.join(sorted({ids[name] for name in of_queue.values() if name in ids}))}")
    elif 1 in calls.pipeline(  # one key each: some may be away
        [("EXISTS", key) for queue in bare for key in keys.queue(queue).all_keys()], raise_errors=False
    ):
        seen = "the keyspace is in use and has no marker: the loss of a part of it would go unnoticed"
        cause = "Work was sent before the first worker, web or scheduler started, or an earlier release created it"
        yield GROUP.warning("unmarked", seen, cause, ACCEPT)


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
