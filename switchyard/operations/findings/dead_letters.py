"""Checks of dead letters: groups with new letters."""

from __future__ import annotations

from collections.abc import Iterator

from switchyard.console.formatting import counted
from switchyard.dead_letters.queries import groups
from switchyard.operations.findings.finding import Finding, FindingGroup

GROUP = FindingGroup("dead letters")
SHOWN = 5


def look() -> Iterator[Finding]:
    """Report the groups with new letters.

    Raises:
        django.db.DatabaseError: the database does not answer.
    """
    found = [group for group in groups(limit=100) if group.new]
    for group in found[:SHOWN]:
        seen = f"{group.new:,} new of {group.actor} in {group.queue}: {group.exception}"
        step = f"manage.py switchyard deadletters list --group {group.fingerprint}"
        cause = "Their retries are exhausted, or the failure is permanent; nothing consumes a dead list"
        yield GROUP.warning("new", seen, cause, step, group.queue)
    if len(found) > SHOWN:
        seen = f"and {counted(len(found) - SHOWN, 'more group')}"
        yield GROUP.warning("new", seen, "", "manage.py switchyard deadletters list")
    if not found:
        yield GROUP.ok("no new dead letter")
