"""Checks of a cluster's parts: queues and their masters, markers of the keyspace, replicas of each master."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import redis

from switchyard.addons.cluster.keyspaces import marks_of, unmarked_nodes
from switchyard.broker.errors import BrokerError
from switchyard.broker.health.keyspace_id import ACCEPT
from switchyard.broker.health.nodes import holder_of, places_of
from switchyard.broker.health.sentinels import judge_replicas
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.conf import declared_yard
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.servers.causes import CAUSES, GROUP

NO_REPLICA = "Start a server, and let it follow: valkey-cli --cluster add-node HOST:PORT {} --cluster-slave"


def places(calls: RedisCalls, keys: Keys) -> Iterator[Finding]:
    """Report which queue is on which master of a cluster."""
    queues = places_of(calls, keys, [queue.name for queue in declared_yard().queues])
    for address, names in queues.items():
        yield GROUP.ok("place", f"node {address} holds {', '.join(names) or 'no queue'}", subject=", ".join(names))
    bare = [address for address, names in queues.items() if not names]
    crowded = max(queues.values(), key=len)
    if bare and len(crowded) > 1:
        yield GROUP.ok(
            "spread",
            f"{', '.join(crowded)} share a node, and no queue is on {', '.join(bare)}",
            cause="The hash of a queue's name decides its node",
        )


def markers(calls: RedisCalls, keys: Keys, queues: list[str], answering: set[str]) -> Iterator[Finding]:
    pairs = [pair for pair in marks_of(calls, keys, queues) if holder_of(calls, pair[0]) in answering]
    marks, missed = [name for name, _ in pairs], [name for _, name in pairs]
    found = calls.pipeline([("HGET", name, "id") for name in marks], raise_errors=False)
    if any(isinstance(id_, BrokerError) for id_ in found):
        return  # reported above: a replica without its primary, or a key of another type
    ids = {name: str(id_, "utf-8", "replace")[:8] for name, id_ in zip(marks, found, strict=True) if id_ is not None}
    of_queue = {queue: keys.queue(queue).keyspace_id if calls.spread else keys.generation() for queue in queues}
    unmarked = [queue for queue, name in of_queue.items() if name in marks and name not in ids]
    # A marker that a process misses was there and is gone, which is reported above.
    known = calls.pipeline([("EXISTS", name) for name in missed])
    gone = [name for name, there in zip(marks, known, strict=True) if there]
    lost = {holder_of(calls, name) for name in gone} if calls.spread else set()
    unmarked = [queue for queue in unmarked if of_queue[queue] not in gone]
    bare = {node: late for node, late in unmarked_nodes(calls, keys, ids).items() if node in answering - lost}
    if not unmarked and not bare and not gone:
        shown = sorted({ids[name] for name in of_queue.values() if name in ids})
        yield GROUP.ok("marker", f"keyspace {' '.join(shown)}{', every master has a marker' if calls.spread else ''}")
    elif 1 in calls.pipeline(  # one key each: those of a half-moved slot are on two nodes
        [("EXISTS", key) for queue in unmarked for key in keys.queue(queue).all_keys()], raise_errors=False
    ):
        seen = "the keyspace is in use and has no marker: the loss of a part of it would go unnoticed"
        cause = "Work was sent before the first worker, web or scheduler started, or an earlier release created it"
        yield GROUP.warning("unmarked", seen, cause, ACCEPT)
    for node, later in bare.items():
        cause = "No process of this release has started yet" if later else "It holds no queue, nor 512 slots in a row"
        then = "Start a pool, web or scheduler" if later else "Move 512 slots in a row to it, or give it a slot group"
        yield GROUP.warning("no_marker", f"node {node} has no marker: its loss would go unnoticed", cause, then)


def replicas(servers: Iterable[tuple[str, redis.Redis]]) -> Iterator[Finding]:
    """Report masters that no replica could replace, or only one that lacks writes."""
    alone = []
    for address, client in servers:
        try:
            replication: Any = client.info("replication")
        except redis.RedisError:  # away since it was asked first; or an ACL user without INFO, which "unverified" says
            continue
        for item in judge_replicas(replication, known=0):
            if item.code == "no_replica":
                alone.append(address)
            else:
                yield GROUP.finding(
                    item.severity, item.code, f"node {address}: {item.seen}", CAUSES[item.code][0], item.remedy
                )
    if alone:
        whose = "its queues" if len(alone) == 1 else "the queues of each"
        seen = f"no replica is connected to {', '.join(alone)}: {whose} wait for as long as it is away"
        yield GROUP.warning("no_replica", seen, CAUSES["no_replica"][0], NO_REPLICA.format(alone[0]))
