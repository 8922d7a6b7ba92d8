"""Findings about a cluster: what doctor, pages and checks say of its nodes, slots and replicas, and why."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import redis

from switchyard.addons.cluster.hash_slots import HashSlotHalfMoved, NoSlots, split_cluster_url
from switchyard.addons.cluster.servers import Masters
from switchyard.broker.errors import BrokerError
from switchyard.broker.health.servers import judge_replicas
from switchyard.operations.findings.finding import UNSAFE, Finding, FindingGroup, Rank, Words
from switchyard.operations.findings.servers import CAUSES, GROUP

NO_REPLICA: Final = "Start a server, and let it follow: valkey-cli --cluster add-node HOST:PORT {} --cluster-slave"
WORDS: Final = {
    "node_away": Words(
        "The node was stopped or is cut off, and has no replica that took over",
        Rank("broker.node_away", "Node away", says="Of the cluster, {seen}."),
        before="pools.returning",
        now=True,
        check="switchyard.W034",
    ),
    "half_moved": Words(
        "A reshard was interrupted, or is running",
        Rank("broker.half_moved", "Slot half moved", says="Of the cluster, {seen}."),
        before="pools.returning",
        now=True,
    ),
    "cluster": Words(
        "The address of a cluster's node, without +cluster in its scheme",
        Rank("broker.cluster", "Unsafe", says=UNSAFE),
        before="broker.no_quorum",
        check="switchyard.E017",
    ),
}


def explain(group: FindingGroup, error: BaseException, program: str) -> Finding | None:
    """Return the finding for an error that only a cluster has; ``program`` is the server's command line client."""
    if isinstance(error, HashSlotHalfMoved):
        step = f"{error.remedy[0].upper()}{error.remedy[1:]}"
        return group.error("half_moved", error.cause, WORDS["half_moved"].cause, step)
    cause = error.__cause__ if isinstance(error, BrokerError) else error
    if isinstance(cause, NoSlots):
        seen, why = "no node of the cluster holds hash slots", "The nodes run and were never joined"
        return group.error("away", seen, why, f"{program} --cluster create, with the address of every node")
    return None


def options_of(url: str, step: str) -> str:
    """Return the options that lead the server's command line client to the cluster; "" where the step names a node."""
    if "--cluster" in step:
        return ""
    host, port = split_cluster_url(url)[1][0]
    return f"-c -h {host} -p {port}"


def look(servers: Masters, clients: Sequence[tuple[str, redis.Redis]]) -> Iterator[Finding]:
    """Check what only a cluster has, with clients of the masters that answer, by their addresses."""
    yield from _unmarked(servers, {address for address, _ in clients})
    yield from _places(servers)
    yield from _replicas(clients)


def _unmarked(servers: Masters, answering: set[str]) -> Iterator[Finding]:
    """Report masters that hold no marker, and have lost none."""
    pairs = [pair for pair in servers.marks() if servers.place_of(pair[0]) in answering]
    found = servers.calls.pipeline(
        [command for pair in pairs for command in zip(("EXISTS", "EXISTS"), pair, strict=True)], raise_errors=False
    )
    marked = [marker for (marker, _), there in zip(pairs, found[::2], strict=True) if there == 1]
    lost = {servers.place_of(marker) for (marker, _), there in zip(pairs, found[1::2], strict=True) if there == 1}
    for address, later in servers.unmarked(marked).items():
        if address in answering - lost:
            cause = (
                "No process of this release has started yet" if later else "It holds no queue, nor 512 slots in a row"
            )
            then = (
                "Start a pool, web or scheduler" if later else "Move 512 slots in a row to it, or give it a slot group"
            )
            seen = f"node {address} has no marker: its loss would go unnoticed"
            yield GROUP.warning("no_marker", seen, cause, then)


def _places(servers: Masters) -> Iterator[Finding]:
    """Report which queue is on which master."""
    for address, names in servers.queues_by_place().items():
        yield GROUP.ok(f"node {address} holds {', '.join(names) or 'no queue'}", subject=", ".join(names))


def _replicas(clients: Sequence[tuple[str, redis.Redis]]) -> Iterator[Finding]:
    """Report masters that no replica could replace, or only one that lacks writes."""
    alone = []
    for address, client in clients:
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
