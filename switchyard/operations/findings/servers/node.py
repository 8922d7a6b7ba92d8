"""Checks of one server: settings, memory, latency, clock, slow commands."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import redis
from django.conf import settings

from switchyard.broker.health.server import ServerFacts
from switchyard.broker.keys.keys import Keys
from switchyard.console.formatting import size
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.servers.causes import GROUP

PINGS = 20
SLOW_PING_MS = 5.0
CLOCK_S = 1.0
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
    ours = [
        entry
        for entry in entries
        if keys.prefix.encode() in entry["command"] and seconds - entry["start_time"] <= SLOW_FOR_S
    ]
    if not ours:
        yield GROUP.ok("its slow log holds no command of ours from the last hour")
        return
    longest = max(ours, key=lambda entry: int(entry["duration"]))
    longest_ms = longest["duration"] / 1000
    name = str(longest["command"][:40], "utf-8", "replace").split()[0]
    seen = (
        f"in its slow log within the last hour: {len(ours)} of our commands, the longest {longest_ms:.0f} ms ({name})"
    )
    if len(ours) < MANY_SLOW and longest_ms < STALLED_MS:
        yield GROUP.ok(seen)
        return
    cause = "The server lacked CPU time, or disk throughput for its append-only file"
    yield GROUP.warning("slow", seen, cause, "valkey-cli SLOWLOG GET 10")
