"""Dead letters that nobody has looked at."""

from __future__ import annotations

from collections.abc import Iterator

from apps.platform.dead_letters.queries import groups
from apps.platform.doctor.finding import Finding

GROUP = "dead letters"
SHOWN = 5


def look() -> Iterator[Finding]:
    """Name the groups with letters that are new.

    Raises:
        django.db.DatabaseError: the database does not answer.
    """
    found = [group for group in groups(limit=100) if group.new]
    for group in found[:SHOWN]:
        seen = f"{group.new:,} new of {group.actor} in {group.queue}: {group.exception}"
        step = f"manage.py deadletters list --group {group.fingerprint}"
        cause = "They used up their retries, or can never succeed; nothing consumes them"
        yield Finding(GROUP, "new", "warning", seen, cause, step, group.queue)
    if len(found) > SHOWN:
        seen = f"and {len(found) - SHOWN} more groups"
        yield Finding(GROUP, "more", "warning", seen, "", "manage.py deadletters list")
    if not found:
        yield Finding(GROUP, "triaged", "ok", "none is new")
