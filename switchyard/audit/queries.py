"""Reads of the audit log: the acts that it knows, its rows as pages and JSON show them, and those that match."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.db.models import QuerySet

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import datetime_of
from switchyard.console import links
from switchyard.console.formatting import iso, time_ms

ACTS: dict[str, str] = {
    "queue.pause": "Pause a queue",
    "queue.resume": "Resume a queue",
    "queue.purge": "Purge a queue",
    "queue.purge_undo": "Undo a purge",
    "queue.relocate": "Relocate an actor's messages",
    "queue.note": "Note on a queue",
    "room.note": "Note on the overview",
    "queue.import": "Import a queue's messages",
    "actor.pause": "Pause an actor",
    "actor.resume": "Resume an actor",
    "circuit.open": "Open a circuit",
    "limit.override": "Override a limit",
    "worker.quiet": "Quiet a worker",
    "worker.resume": "Let a worker take work again",
    "worker.stop": "Stop a worker",
    "job.cancel": "Cancel a job",
    "job.edit": "Edit a job",  # up to 0.10
    "job.run_again": "Run a job again",
    "job.run_now": "Run a scheduled job now",
    "job.send": "Send a job",
    "letter.acknowledge": "Acknowledge dead letters",
    "letter.requeue": "Requeue dead letters",
    "letter.discard": "Discard dead letters",
    "letter.restore": "Restore discarded dead letters",
    "letter.take_back": "Take back requeued dead letters",
    "letter.note": "Note on a dead letter",
    "letter.edit": "Edit and requeue a dead letter",
    "quarantine.requeue": "Requeue quarantined messages",
    "quarantine.discard": "Discard quarantined messages",
    "alert.acknowledge": "Acknowledge alerts",
    "alert.silence": "Silence alerts",
    "alert.unsilence": "End a silence",
    "alert.resolve": "Resolve alerts",
    "alert.test": "Send a test to a channel",
    "alert.note": "Note on an alert",
    "schedule.run": "Run a schedule now",
    "schedule.pause": "Pause a schedule",
    "schedule.resume": "Resume a schedule",
    "schedule.save": "Make or change a schedule",
    "schedule.delete": "Delete a schedule",
    "batch.cancel": "Cancel a batch",
    "batch.retry": "Requeue what failed in a batch",
    "bulk.start": "Start a bulk act",
    "bulk.stop": "Stop a bulk act",
    "token.create": "Create an API token",
    "token.rename": "Rename an API token",
    "token.revoke": "Revoke an API token",
    "token.delete": "Delete an API token",
    "settings.change": "Change a setting",
}

PAUSE, PURGE, RUN = "switchyard_operations.pause_queue", "switchyard_operations.purge_queue", "switchyard_jobs.run_job"
LETTERS = "switchyard_dead_letters.{}_deadletter"
# Rights that acts on queues need, on each of their queues; that of a bulk act is its kind's.
QUEUE_RIGHTS: Final = {
    **dict.fromkeys(("queue.pause", "queue.resume", "queue.relocate", "queue.note"), PAUSE),
    **dict.fromkeys(("actor.pause", "actor.resume", "circuit.open", "limit.override"), PAUSE),
    **dict.fromkeys(("queue.purge", "queue.purge_undo"), PURGE),
    **dict.fromkeys(("job.run_again", "job.run_now", "job.send"), RUN),
    "job.cancel": "switchyard_jobs.cancel_job",
    **dict.fromkeys(("letter.acknowledge", "letter.note"), LETTERS.format("acknowledge")),
    **dict.fromkeys(("letter.requeue", "letter.edit"), LETTERS.format("requeue")),
    **dict.fromkeys(("letter.discard", "letter.restore"), LETTERS.format("discard")),
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


def newest_entries(*, since: datetime, limit: int) -> list[dict[str, Any]]:
    return [shown(entry.without_value()) for entry in AuditEntry.objects.filter(at__gte=since)[:limit]]


def shown(entry: AuditEntry) -> dict[str, Any]:
    """Return a row with its act in words and the address of its target, or "", for a page."""
    return {"entry": entry, "label": act_label(entry), "url": target_url(entry)}


def as_json(entry: AuditEntry) -> dict[str, Any]:
    """Return a row as JSON; times are ISO 8601 in UTC."""
    return {
        "id": entry.pk,
        "at": iso(entry.at),
        "ended_at": entry.ended_at and iso(entry.ended_at),
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


LONGEST_TEXT: Final = 255


EXACT: Final = ("who", "target", "via", "outcome")
TIMES: Final = {"since": "at__gte", "until": "at__lt"}


def conditions_of(query: Mapping[str, str]) -> dict[str, str]:
    """Return the conditions in a request's query, without unknown names; ``ValueError`` quotes an unusable one.

    All must hold. ``act`` is the name of an act, or of its thing alone, such as ``queue``; ``since`` and ``until``
    (which is left out) are ISO 8601, or ``30m``, ``1h``, ``7d`` ago.
    """
    found = {name: value for name in ("act", *EXACT, *TIMES) if (value := query.get(name, "").strip())}
    for name, value in found.items():
        if len(value) > LONGEST_TEXT or "\0" in value:
            raise ValueError(f"{name}: {value!r:.40} has over {LONGEST_TEXT} characters, or a NUL; shorten it")
    acts = [*ACTS, *{name.partition(".")[0] for name in ACTS}]
    for name, known in (("via", AuditEntry.Via.values), ("outcome", AuditEntry.Outcome.values), ("act", acts)):
        if name in found and found[name] not in known:
            raise ValueError(f"{name}: {found[name]!r:.100} is none of {', '.join(sorted(known))}")
    for name in TIMES:
        time_ms(name, found.get(name, ""))
    return found


def entries(asked: Mapping[str, str]) -> QuerySet[AuditEntry]:
    """Return the rows that match :func:`conditions_of`, newest first."""
    rows = AuditEntry.objects.filter(**{name: asked[name] for name in EXACT if name in asked})
    if act := asked.get("act"):
        rows = rows.filter(act=act) if "." in act else rows.filter(act__startswith=f"{act}.")
    for name, lookup in TIMES.items():
        if (ms := time_ms(name, asked.get(name, ""))) is not None:
            rows = rows.filter(**{lookup: datetime_of(ms)})
    return rows
