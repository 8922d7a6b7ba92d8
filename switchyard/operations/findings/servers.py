"""Checks of the broker's servers, mostly one, of the sentinels of its address, and of their master's replicas."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import redis
from django.conf import settings

from switchyard.broker.errors import BrokerError, BrokerRefused, BrokerUnavailable
from switchyard.broker.health import servers as health
from switchyard.broker.health.server import ACCEPT, ServerFacts, foreign
from switchyard.broker.health.servers import ServerLook, Servers, servers_of
from switchyard.broker.keys import Keys
from switchyard.broker.redis.addresses import is_sentinel_url
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.own_keys import noted
from switchyard.broker.redis.sentinel import parse, sentinels_of
from switchyard.broker.stores.alert_groups import AlertGroups
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.pool_reports import PoolReports
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.formatting import size
from switchyard.operations.findings.facts import quick_client
from switchyard.operations.findings.finding import Finding, FindingGroup, addon_words
from switchyard.operations.supervisors import read_server_state

GROUP = FindingGroup("broker")

APPEND = "valkey-cli CONFIG SET appendonly yes, and in its configuration"
# Code of a finding of switchyard/broker/health -> most likely cause, and a command; "" keeps the finding's own remedy.
CAUSES = {
    "evicting": ("It is configured as a cache, or shared with one",
                 "valkey-cli CONFIG SET maxmemory-policy noeviction, and the same in its configuration"),
    "nothing_kept": ("The append-only file was never turned on", APPEND),
    "snapshots_only": ("The server's default", APPEND),
    "replica": ("A failover that SWITCHYARD_BROKER_URL does not follow",
                "valkey-cli ROLE; then point SWITCHYARD_BROKER_URL at the primary"),
    "nearly_full": ("Messages arrive faster than they are processed, or results accumulate",
                    "manage.py switchyard queues"),
    "disk": ("Its disk is full or broken", "df -h on the server; work resumes by itself when there is room"),
    "loading": ("It has just been started", "manage.py switchyard doctor, again in a minute"),
    "keyspace": ("FLUSHDB, a failover to an empty server, another database number", f"Restore it, or {ACCEPT}"),
    "wrong_type": ("Another program uses the same database", ""),
    "unverified": ("An ACL user without INFO", ""),
    "too_old": ("An old package", ""),
    "sentinel_away": ("It is down or cut off, or the address is out of date", ""),
    "sentinel_refuses": ("Login, TLS or master's name differ on both sides", ""),
    "sentinels_split": ("A failover is going on, or some are cut off from the others", ""),
    "no_quorum": ("Too many sentinels are down, cut off from one another, or lack tls-replication", ""),
    "no_replica": ("It was never configured, is down, or the master refuses its user or password", ""),
    "replica_behind": ("It is down or has just started, its network is slow, or its disk is", ""),
}  # fmt: skip


def cause_of(code: str) -> tuple[str, str]:
    """Return the most likely cause of a finding, and a command or ""."""
    words = addon_words().get(code)
    return CAUSES.get(code, ("", "") if words is None else (words.cause, ""))


PINGS = 20
# Letters that are read of each queue.
LETTERS = 20
SLOW_PING_MS, CLOCK_S = 5.0, 1.0
FRAGMENTED, FRAGMENTED_BYTES = 1.5, 200_000_000
SLOW_FOR_S = 3_600
# The server logs commands of 10 ms and more. A few an hour are harmless; many of them, or one of 100 ms, are not.
MANY_SLOW, STALLED_MS = 10, 100.0


def described(facts: ServerFacts) -> Finding:
    version = ".".join(map(str, facts.version or ())) or "of unknown version"
    kept = {True: "append-only file", False: "no append-only file", None: "unknown persistence"}[facts.append_only]
    limit = f"of {size(facts.max_bytes)}" if facts.max_bytes else "without a limit"
    seen = f"{facts.name} {version}, {facts.role or 'unknown role'}, {facts.policy or 'unknown policy'}, {kept}, "
    return GROUP.ok(f"{seen}{size(facts.used_bytes)} used {limit}")


def minor_defects(client: redis.Redis) -> Iterator[Finding]:
    """Yield defects that pools do not watch for, because they page nobody."""
    try:
        info = client.info()
    except redis.RedisError:
        return
    if not info.get("maxmemory") and not settings.DEBUG:
        seen = "maxmemory is not set: when memory runs out, the kernel kills the server"
        step = "valkey-cli CONFIG SET maxmemory 512mb, and in its configuration"
        yield GROUP.warning("no_limit", seen, "The server's default", step)
    ratio = float(info.get("mem_fragmentation_ratio", 0))
    if ratio > FRAGMENTED and int(info.get("used_memory", 0)) > FRAGMENTED_BYTES:
        rss, used = size(int(info.get("used_memory_rss", 0))), size(int(info["used_memory"]))
        seen = f"memory is fragmented {ratio:.1f} times: {rss} for {used}"
        cause = "Many keys of changing sizes were written and deleted"
        yield GROUP.warning("fragmented", seen, cause, "valkey-cli CONFIG SET activedefrag yes, or restart it")
    for field, what in (("aof_last_bgrewrite_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if info.get(field, "ok") != "ok":
            seen, cause = f"the last rewrite of its {what} failed", "No room on disk, or no memory to fork"
            yield GROUP.warning("rewrite_failed", seen, cause, "df -h; then the server's log")


def latency(client: redis.Redis) -> Finding:
    took_ms = []
    for _ in range(PINGS):
        started = time.perf_counter()
        client.ping()
        took_ms.append((time.perf_counter() - started) * 1000)
    median_ms, worst_ms = statistics.median(took_ms), max(took_ms)
    seen = f"{PINGS} pings took {median_ms:.2f} ms (median), {worst_ms:.2f} ms (worst)"
    if median_ms < SLOW_PING_MS:
        return GROUP.ok(seen)
    cause = "The server is far away or busy; each message costs several round trips"
    return GROUP.warning("slow", seen, cause, "valkey-cli --latency, here and on the server")


def clock(client: redis.Redis) -> Finding:
    before = time.time()
    seconds, micros = client.time()
    after = time.time()
    ahead_s = seconds + micros / 1e6 - (before + after) / 2
    seen = f"its clock is {abs(ahead_s):.2f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    if abs(ahead_s) <= CLOCK_S:
        return GROUP.ok(f"{abs(ahead_s) * 1000:.0f} ms between its clock and this machine's")
    cause = "One of them is not synchronised. Leases and delays use the server's clock; ages shown here are wrong"
    return GROUP.warning("clock_off", seen, cause, "timedatectl, on both machines")


def slow_log(client: redis.Redis, keys: Keys) -> Iterator[Finding]:
    try:
        entries: Any = client.slowlog_get(128)
        seconds, _ = client.time()
    except redis.ResponseError:
        return  # an ACL user without SLOWLOG
    lately = (entry for entry in entries if seconds - entry["start_time"] <= SLOW_FOR_S)
    ours = [entry for entry in lately if keys.prefix.encode() in entry["command"]]
    if not ours:
        yield GROUP.ok("its slow log holds no command of ours from the last hour")
        return
    longest = max(ours, key=lambda entry: int(entry["duration"]))
    longest_ms = longest["duration"] / 1000
    slowest = f"{longest_ms:.0f} ms ({str(longest['command'][:40], 'utf-8', 'replace').split()[0]})"
    seen = f"in its slow log within the last hour: {len(ours)} of our commands, the longest {slowest}"
    if len(ours) < MANY_SLOW and longest_ms < STALLED_MS:
        yield GROUP.ok(seen)
        return
    cause = "The server lacked CPU time, or disk throughput for its append-only file"
    yield GROUP.warning("slow", seen, cause, "valkey-cli SLOWLOG GET 10")


def look_at_servers() -> Iterator[Finding]:
    keys = declared_yard().keys
    with quick_client() as client, closing(calls_on(client, budget_s=1.0)) as calls:
        servers = servers_of(calls, keys, [queue.name for queue in declared_yard().queues])
        client.ping()
        looks = servers.read(production=True, away=servers.away())
        yield from _state(servers, looks)
        answering = {look.place: look for look in looks if look.facts is not None}
        clients = [(place, server) for place, server in client.servers() if place in answering]
        for place, server in clients:
            yield from _at(place, minor_defects(server))
        yield from _markers(servers, set(answering))
        for place, server in clients:
            yield from _at(place, [latency(server), clock(server), *slow_log(server, keys)])
        if calls.addon is not None and (look := calls.addon.load("look_at")):
            yield from look(servers, clients)


def look_at_own_keys() -> Iterator[Finding]:
    """Report what this process could not read lately, after reading what no other check reads.

    A server that does not answer is reported by its own check.
    """
    keys = declared_yard().keys
    with quick_client() as client, closing(calls_on(client, budget_s=1.0)) as calls, suppress(BrokerUnavailable):
        pools, lists = PoolReports(calls, keys), (DeadLists(calls, keys), Quarantine(calls, keys))
        reads: list[Callable[[], object]] = [AlertGroups(calls, keys).look]
        reads.append(lambda: pools.read_instructions(pools.read_all()))
        names = [queue.name for queue in declared_yard().queues]
        reads += [partial(each.page, name, cursor=0, limit=LETTERS) for name in names for each in lists]
        for read in reads:
            with suppress(BrokerRefused):  # a key of a wrong type, which is reported above
                read()
    for item in foreign(noted(), "warning"):
        yield GROUP.finding(item.severity, item.code, item.seen, cause_of(item.code)[0], item.remedy)


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
            yield from _at(each.place, [described(each.facts)])


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
    url, named = switchyard_settings().broker_url, switchyard_settings().server_variable
    if not is_sentinel_url(url):
        return
    states = health.read_sentinels(sentinels_of(parse(url)))
    replication: Any = None
    with quick_client() as client, suppress(redis.RedisError):
        # Away, which the server's own check reports; or an ACL user without INFO.
        replication = dict(client.info("replication"))
    found = list(health.judge_sentinels(states))
    if replication is not None:
        found += health.judge_replicas(replication, health.most_known(states))
    if seen := health.told(states, replication):
        yield GROUP.ok(seen)
    for item in found:
        step = item.remedy.replace(health.ADDRESS, named)
        yield GROUP.finding(item.severity, item.code, item.seen, CAUSES[item.code][0], step)
