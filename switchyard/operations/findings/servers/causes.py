"""Group of the findings, and the most likely cause of each that switchyard/broker/health reports."""

from __future__ import annotations

from switchyard.broker.health.keyspace_id import ACCEPT
from switchyard.operations.findings.finding import FindingGroup
from switchyard.operations.findings.precedence import addon_words

GROUP = FindingGroup("broker")

# Code of a finding of switchyard/broker/health -> most likely cause, and a command; "" keeps the finding's own remedy.
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
    "nearly_full": (
        "Messages arrive faster than they are processed, or results accumulate",
        "manage.py switchyard queues",
    ),
    "disk": ("Its disk is full or broken", "df -h on the server; work resumes by itself when there is room"),
    "loading": ("It has just been started", "manage.py switchyard doctor, again in a minute"),
    "keyspace": ("FLUSHDB, a failover to an empty server, another database number", f"Restore it, or {ACCEPT}"),
    "wrong_type": ("Another program uses the same database", ""),
    "unverified": ("An ACL user without INFO or CONFIG GET", ""),
    "too_old": ("An old package", ""),
    "sentinel_away": ("It is down or cut off, or the address is out of date", ""),
    "sentinel_refuses": ("Login, TLS or master's name differ on both sides", ""),
    "sentinels_split": ("A failover is going on, or some are cut off from the others", ""),
    "no_quorum": ("Too many sentinels are down, cut off from one another, or lack tls-replication", ""),
    "no_replica": ("It was never configured, is down, or the master refuses its user or password", ""),
    "replica_behind": ("It is down or has just started, its network is slow, or its disk is", ""),
}


def cause_of(code: str) -> tuple[str, str]:
    """Return the most likely cause of a finding, and a command or ""."""
    words = addon_words().get(code)
    return CAUSES.get(code, ("", "") if words is None else (words.cause, ""))
