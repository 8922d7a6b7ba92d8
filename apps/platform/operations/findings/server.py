"""Checks of the broker's server: reachable, durable, enough memory, low latency, same clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import redis
from django.conf import settings

from apps.platform.conf import declared_yard, switchyard_settings
from apps.platform.console.formatting import size
from apps.platform.operations.findings.failures import rabbitmq_away
from apps.platform.operations.findings.finding import Finding, FindingGroup
from apps.platform.operations.server_state import UNCONFIRMED, read_server_state
from broker.errors import BrokerError, BrokerRefused, BrokerUnavailable
from broker.health.cluster_ids import marks_of, unmarked_nodes
from broker.health.keyspace_id import ACCEPT
from broker.health.nodes import NodeState, away_part, by_code, places_of, read_nodes
from broker.health.sentinels import judge_replicas, judge_sentinels, most_known, read_sentinels, told
from broker.health.server import ServerFacts
from broker.keys.keys import Keys
from broker.redis.access import calls_on
from broker.redis.calls import RedisCalls
from broker.redis.cluster_client import each_server
from broker.redis.connections import connect
from broker.redis.sentinel import sentinels_of
from broker.redis.sentinel_url import is_sentinel_url, parse

GROUP = FindingGroup("broker")
PINGS = 20
SLOW_PING_MS = 5.0
CLOCK_S = 1.0
MINORITY = "Most of its nodes are away or cut off, or one that leads queues hangs"
OTHER_TYPE = "Queues keep the type that they were declared with; workers cannot fetch from one of another type"
QUEUE_REMEDY = "Set SWITCHYARD_RABBITMQ_QUEUES to the type that it has, or delete that queue when it is empty"
FRAGMENTED, FRAGMENTED_BYTES = 1.5, 200_000_000
SLOW_FOR_S = 3_600
# The server logs commands of 10 ms and more. A few an hour are harmless; many of them, or one of 100 ms, are not.
MANY_SLOW, STALLED_MS = 10, 100.0
CONFIGURED = ("lazyfree-lazy-expire", "slowlog-log-slower-than")

# Code of a finding of broker/health -> most likely cause, and a command; "" keeps the finding's own remedy.
CAUSES = {
    "evicting": (
        "It is configured as a cache, or shared with one",
        "valkey-cli CONFIG SET maxmemory-policy noeviction, and the same in its configuration",
    ),
    "nothing_kept": (
        "The append-only file was never turned on",
        "valkey-cli CONFIG SET appendonly yes, and in its configuration",
    ),
    "snapshots_only": ("The server's default", "valkey-cli CONFIG SET appendonly yes, and in its configuration"),
    "replica": (
        "A failover that SWITCHYARD_BROKER_URL does not follow",
        "valkey-cli ROLE; then point SWITCHYARD_BROKER_URL at the primary",
    ),
    "nearly_full": ("Messages arrive faster than they are processed, or results accumulate", "manage.py queues"),
    "disk": ("Its disk is full or broken", "df -h on the server; work resumes by itself when there is room"),
    "loading": ("It has just been started", "manage.py doctor, again in a minute"),
    "keyspace": ("FLUSHDB, a failover to an empty server, another database number", f"Restore it, or {ACCEPT}"),
    "wrong_type": ("Another program uses the same database", ""),
    "unverified": ("An ACL user without INFO or CONFIG GET", ""),
    "too_old": ("An old package", ""),
    "cluster": ("The address of a cluster's node, without +cluster in its scheme", ""),
    "node_away": ("The node was stopped or is cut off, and has no replica that took over", ""),
    "sentinel_away": ("It is down or cut off, TLS differs on both sides, or the address is out of date", ""),
    "sentinels_split": ("A failover is going on, or some are cut off from the others", ""),
    "no_quorum": ("Too many sentinels are down, cut off from one another, or lack tls-replication", ""),
    "no_replica": ("It was never configured, is down, or the master refuses its user or password", ""),
    "replica_behind": ("It is down or has just started, its network is slow, or its disk is", ""),
}


def look() -> Iterator[Finding]:
    """Check the server.

    Raises:
        BrokerError: the server does not answer.
    """
    client = connect(switchyard_settings().broker_url, profile="quick")
    keys, queues = declared_yard().keys, [queue.name for queue in declared_yard().queues]
    calls = calls_on(client, budget_s=1.0)
    try:
        client.ping()
        away = away_part(calls, keys, queues)
        nodes = read_nodes(calls, production=True, keys=keys, queues=queues, away=away)
        yield from _server(calls, nodes, keys)
        answering = {node.address for node in nodes if node.facts is not None}
        servers = [(address, server) for address, server in each_server(client) if address in answering]
        for address, server in servers:
            yield from _of_node(address, _minor_defects(server))
        yield from _marker(calls, keys, queues, answering)
        for address, server in servers:
            yield from _of_node(address, [_latency(server), _clock(server), *_slow_log(server, keys)])
        if calls.spread:
            yield from _places(calls, keys)
    finally:
        calls.close()
        client.close()


def look_at_sentinels() -> Iterator[Finding]:
    """Ask every sentinel of the address for the master, and the master for its replicas; neither has to answer."""
    url = switchyard_settings().broker_url
    if not is_sentinel_url(url):
        return
    states = read_sentinels(sentinels_of(parse(url)))
    replication = _replication(url)
    found = judge_sentinels(states)
    if replication is not None:
        found += judge_replicas(replication, most_known(states))
    if seen := told(states, replication):
        yield GROUP.ok("sentinels", seen)
    for item in found:
        yield GROUP.finding(item.severity, item.code, item.seen, CAUSES[item.code][0], item.remedy)


def look_at_rabbitmq() -> Iterator[Finding]:
    """Connect to the RabbitMQ that takes the messages, where it does: :func:`look` checks the server beside it."""
    own = switchyard_settings()
    if not own.rabbitmq_url:
        return
    from broker.rabbit import majority  # pika is installed where it is used

    try:
        yard = declared_yard()
        took_ms, confirms = majority.ask(own.rabbitmq_url, yard.keys.prefix, own.rabbitmq_queues, yard.lanes)
    except BrokerUnavailable as error:
        yield rabbitmq_away(GROUP, error)
        return
    except BrokerRefused as error:
        yield GROUP.error("refuses", f"RabbitMQ refuses: {error.cause}", OTHER_TYPE, QUEUE_REMEDY)
        return
    yield GROUP.ok("rabbitmq", f"RabbitMQ took a connection in {took_ms:.0f} ms; queues are {own.rabbitmq_queues}")
    if not confirms:
        yield GROUP.error("takes_no_work", f"RabbitMQ accepts no work: {UNCONFIRMED[0]}", MINORITY, UNCONFIRMED[1])


def _replication(url: str) -> dict[str, Any] | None:
    client = connect(url, profile="quick")
    try:
        found: Any = client.info("replication")
        return dict(found)
    except redis.RedisError:  # away, which the server's own check reports; or an ACL user without INFO
        return None
    finally:
        client.close()


def _of_node(address: str, found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings with the node of a cluster that they are about."""
    for item in found:
        yield replace(item, seen=f"node {address}: {item.seen}") if address else item


def _places(calls: RedisCalls, keys: Keys) -> Iterator[Finding]:
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


def _server(calls: RedisCalls, nodes: list[NodeState], keys: Keys) -> Iterator[Finding]:
    state = read_server_state(calls, keys)
    if state.refusal:
        yield GROUP.error(
            "takes_no_work", f"it accepts no work: {state.refusal}", "The server refuses writes", state.remedy
        )
    found = list(state.findings) + [item for item in by_code(nodes) if item.code == "unverified"]
    for item in found:
        cause, command = CAUSES.get(item.code, ("", ""))
        yield GROUP.finding(item.severity, item.code, item.seen, cause, command or item.remedy)
    for node in nodes:
        if node.facts is not None:
            yield from _of_node(node.address, [_described(node.facts)])


def _described(facts: ServerFacts) -> Finding:
    version = ".".join(map(str, facts.version or ())) or "of unknown version"
    kept = {True: "append-only file", False: "no append-only file", None: "unknown persistence"}[facts.append_only]
    limit = f"of {size(facts.max_bytes)}" if facts.max_bytes else "without a limit"
    seen = f"{facts.name} {version}, {facts.role or 'unknown role'}, {facts.policy or 'unknown policy'}, {kept}, "
    return GROUP.ok("server", f"{seen}{size(facts.used_bytes)} used {limit}")


def _minor_defects(client: redis.Redis) -> Iterator[Finding]:
    """Yield defects that pools do not watch for, because they page nobody."""
    with client.pipeline(transaction=False) as pipe:
        pipe.info()
        pipe.config_get("*")
        info, config = pipe.execute(raise_on_error=False)
    if isinstance(info, Exception):
        return
    config = {} if isinstance(config, Exception) else config
    if config.get("lazyfree-lazy-expire") == "no":
        yield GROUP.warning("stalls", "lazyfree-lazy-expire is no: the server blocks while a large key expires",
            "The default of Redis 7", "valkey-cli CONFIG SET lazyfree-lazy-expire yes, and in its configuration",
        )  # fmt: skip
    if not info.get("maxmemory") and not settings.DEBUG:
        yield GROUP.warning("no_limit", "maxmemory is not set: when memory runs out, the kernel kills the server",
            "The server's default", "valkey-cli CONFIG SET maxmemory 512mb, and in its configuration",
        )  # fmt: skip
    ratio = float(info.get("mem_fragmentation_ratio", 0))
    if ratio > FRAGMENTED and int(info.get("used_memory", 0)) > FRAGMENTED_BYTES:
        rss, used = size(int(info.get("used_memory_rss", 0))), size(int(info["used_memory"]))
        seen = f"memory is fragmented {ratio:.1f} times: {rss} for {used}"
        cause = "Many keys of changing sizes were written and deleted"
        yield GROUP.warning("fragmented", seen, cause, "valkey-cli CONFIG SET activedefrag yes, or restart it")
    for field, what in (("aof_last_bgrewrite_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if info.get(field, "ok") != "ok":
            seen = f"the last rewrite of its {what} failed"
            yield GROUP.warning(
                "rewrite_failed", seen, "No room on disk, or no memory to fork", "df -h; then the server's log"
            )


def _marker(calls: RedisCalls, keys: Keys, queues: list[str], answering: set[str]) -> Iterator[Finding]:
    marks = [name for name, _ in marks_of(calls, keys, queues) if calls.node_of(name) in answering]
    found = calls.pipeline([("HGET", name, "id") for name in marks], raise_errors=False)
    if any(isinstance(id_, BrokerError) for id_ in found):
        return  # reported above: a replica without its primary, or a key of another type
    ids = {name: str(id_, "utf-8", "replace")[:8] for name, id_ in zip(marks, found, strict=True) if id_ is not None}
    of_queue = {queue: keys.queue(queue).keyspace_id if calls.spread else keys.generation() for queue in queues}
    unmarked = [queue for queue, name in of_queue.items() if name in marks and name not in ids]
    bare = {node: later for node, later in unmarked_nodes(calls, keys, ids).items() if node in answering}
    if not unmarked and not bare:
        shown = sorted({ids[name] for name in of_queue.values() if name in ids})
        yield GROUP.ok("marker", f"keyspace {' '.join(shown)}{', every master has a marker' if calls.spread else ''}")
    elif any(calls.command("EXISTS", *keys.queue(queue).all_keys()) for queue in unmarked):
        seen = "the keyspace is in use and has no marker: the loss of a part of it would go unnoticed"
        cause = "Work was sent before the first worker, web or scheduler started, or an earlier release created it"
        yield GROUP.warning("unmarked", seen, cause, ACCEPT)
    for node, later in bare.items():
        cause = "No process of this release has started yet" if later else "It holds no queue, nor 512 slots in a row"
        then = "Start a pool, web or scheduler" if later else "Move 512 slots in a row to it, or give it a slot group"
        yield GROUP.warning("no_marker", f"node {node} has no marker: its loss would go unnoticed", cause, then)


def _latency(client: redis.Redis) -> Finding:
    took_ms = []
    for _ in range(PINGS):
        started = time.perf_counter()
        client.ping()
        took_ms.append((time.perf_counter() - started) * 1000)
    median_ms, worst_ms = statistics.median(took_ms), max(took_ms)
    seen = f"{PINGS} pings took {median_ms:.2f} ms (median), {worst_ms:.2f} ms (worst)"
    if median_ms < SLOW_PING_MS:
        return GROUP.ok("latency", seen)
    cause = "The server is far away or busy; each message costs several round trips"
    return GROUP.warning("slow", seen, cause, "valkey-cli --latency, here and on the server")


def _clock(client: redis.Redis) -> Finding:
    before = time.time()
    seconds, micros = client.time()
    after = time.time()
    ahead_s = seconds + micros / 1e6 - (before + after) / 2
    seen = f"its clock is {abs(ahead_s):.2f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    if abs(ahead_s) <= CLOCK_S:
        return GROUP.ok("clock", f"{abs(ahead_s) * 1000:.0f} ms between its clock and this machine's")
    cause = "One of them is not synchronised. Leases and delays use the server's clock; ages shown here are wrong"
    return GROUP.warning("clock_off", seen, cause, "timedatectl, on both machines")


def _slow_log(client: redis.Redis, keys: Keys) -> Iterator[Finding]:
    try:
        entries: Any = client.slowlog_get(128)
        seconds, _ = client.time()
    except redis.ResponseError:
        return  # an ACL user without SLOWLOG
    ours = [
        entry
        for entry in entries
        if keys.prefix.encode() in entry["command"] and seconds - entry["start_time"] <= SLOW_FOR_S
    ]
    if not ours:
        yield GROUP.ok("slow_log", "its slow log holds no command of ours from the last hour")
        return
    longest = max(ours, key=lambda entry: int(entry["duration"]))
    longest_ms = longest["duration"] / 1000
    name = str(longest["command"][:40], "utf-8", "replace").split()[0]
    seen = (
        f"in its slow log within the last hour: {len(ours)} of our commands, the longest {longest_ms:.0f} ms ({name})"
    )
    if len(ours) < MANY_SLOW and longest_ms < STALLED_MS:
        yield GROUP.ok("slow_log", seen)
        return
    cause = "The server lacked CPU time, or disk throughput for its append-only file"
    yield GROUP.warning("slow_commands", seen, cause, "valkey-cli SLOWLOG GET 10")
