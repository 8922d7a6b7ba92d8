"""Reads of the audit log, page by page by the id of a row: rows that are written meanwhile shift nothing."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet

from switchyard.audit.filters import AuditFilter, moment
from switchyard.audit.models import AuditEntry

LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Rows, newest first. ``older``: where the next page begins; ``None`` for the last."""

    rows: list[AuditEntry]
    older: int | None


def entries(asked: AuditFilter) -> QuerySet[AuditEntry]:
    """Return the rows of a filter, newest first."""
    rows = AuditEntry.objects.all()
    if asked.act:
        rows = rows.filter(act=asked.act) if "." in asked.act else rows.filter(act__startswith=f"{asked.act}.")
    for name in ("who", "target", "via", "outcome"):
        if value := getattr(asked, name):
            rows = rows.filter(**{name: value})
    if since := moment("since", asked.since):
        rows = rows.filter(at__gte=since)
    if until := moment("until", asked.until):
        rows = rows.filter(at__lt=until)
    return rows


def page(asked: AuditFilter, *, before: int | None = None, limit: int = 50) -> AuditPage:
    """Return at most ``limit`` rows that are older than the row ``before``."""
    rows = entries(asked)
    if before is not None:
        rows = rows.filter(pk__lt=min(before, LARGEST_ID))
    found = list(rows[: limit + 1])
    return AuditPage(found[:limit], found[limit - 1].pk if len(found) > limit else None)
