"""Rows of the audit log as JSON, as lines of text, and with the address of what they name."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec

from switchyard.audit.models import AuditEntry
from switchyard.console import links

ACTS: dict[str, str] = {
    "queue.pause": "Pause a queue",
    "queue.resume": "Resume a queue",
    "queue.purge": "Purge a queue",
    "queue.purge_undo": "Undo a purge",
    "queue.relocate": "Relocate an actor's messages",
    "queue.import": "Import a queue's messages",
    "worker.quiet": "Quiet a worker",
    "worker.resume": "Let a worker take work again",
    "worker.stop": "Stop a worker",
    "job.cancel": "Cancel a job",
    "job.edit": "Edit a job",
    "job.run_again": "Run a job again",
    "job.run_now": "Run a scheduled job now",
    "job.send": "Send a job",
    "letter.acknowledge": "Acknowledge dead letters",
    "letter.requeue": "Requeue dead letters",
    "letter.discard": "Discard dead letters",
    "letter.restore": "Restore discarded dead letters",
    "letter.note": "Note on a dead letter",
    "letter.edit": "Edit and requeue a dead letter",
    "quarantine.requeue": "Requeue quarantined messages",
    "quarantine.discard": "Discard quarantined messages",
    "alert.acknowledge": "Acknowledge alerts",
    "alert.silence": "Silence alerts",
    "alert.unsilence": "End a silence",
    "alert.resolve": "Resolve alerts",
    "alert.test": "Send a test to a channel",
    "schedule.run": "Run a schedule now",
    "schedule.pause": "Pause a schedule",
    "schedule.resume": "Resume a schedule",
    "bulk.start": "Start a bulk act",
    "bulk.stop": "Stop a bulk act",
    "token.create": "Create an API token",
    "token.rename": "Rename an API token",
    "token.revoke": "Revoke an API token",
    "token.delete": "Delete an API token",
    "settings.change": "Change a setting",
}


# Columns that the JSON of a row has as they are.
IN_JSON = ("act", "target", "who", "via", "token", "reason", "count", "outcome", "error", "detail")
# Thing -> address of the page of one by its name or id.
PAGES = {
    "queue": links.queue_url,
    "worker": links.worker_url,
    "job": links.job_url,
    "schedule": links.schedule_url,
    "letter": links.job_url,
}
# Names of bulk acts in the log.
BULK = re.compile(r"bulk act (\d{1,18})")


class ShownEntry(msgspec.Struct, frozen=True):
    """A row of the audit log with its act in words and the address of its target, or ""."""

    entry: AuditEntry
    label: str
    url: str


def newest_entries(*, since: datetime, limit: int) -> list[ShownEntry]:
    """Return the newest acts since a moment."""
    rows = AuditEntry.objects.filter(at__gte=since)[:limit]
    return [ShownEntry(entry, act_label(entry), target_url(entry)) for entry in rows]


def as_json(entry: AuditEntry) -> dict[str, Any]:
    """Return a row as JSON; times are ISO 8601 in UTC."""
    return {
        "id": entry.pk,
        "at": _iso(entry.at),
        "ended_at": _iso(entry.ended_at),
        **{name: getattr(entry, name) for name in IN_JSON},
    }


def act_label(entry: AuditEntry) -> str:
    """Return an act in words; the name of one that only another release knows."""
    return ACTS.get(entry.act, entry.act)


def target_url(entry: AuditEntry) -> str:
    """Return the address of the page of an act's target, or ""."""
    thing, target = entry.act.partition(".")[0], entry.target
    if not target:
        return ""
    if bulk := BULK.fullmatch(target):
        return links.bulk_act_url(int(bulk[1]))
    if thing == "letter" and target == entry.detail.get("group"):
        return links.letters_url(fingerprint=target, state="all")
    if thing == "alert":
        return links.alert_url(int(target)) if target.isdecimal() else ""
    return PAGES[thing](target) if thing in PAGES else ""


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
