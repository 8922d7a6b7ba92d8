"""Reads of the audit log, page by page by the id of a row: rows that are written meanwhile shift nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db.models import QuerySet
from django.utils import timezone

from switchyard.audit.models import AuditEntry
from switchyard.audit.presentation import ACTS

_AGO: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
LONGEST_TEXT: Final = 255


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Conditions on acts, all of which must hold; an empty one holds for every act.

    Args:
        act: Name of an act, or of its thing alone, such as ``queue``.
        since: ISO 8601, or ``30m``, ``1h``, ``7d`` ago.
        until: As ``since``; the time itself is left out.
    """

    who: str = ""
    act: str = ""
    target: str = ""
    via: str = ""
    outcome: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> AuditFilter:
        """Return the filter that a query says; other names are ignored.

        Raises:
            ValueError: a value is unusable; the text begins with its name and quotes it.
        """
        values = {field.name: query.get(field.name, "").strip() for field in fields(cls)}
        for name, value in values.items():
            if len(value) > LONGEST_TEXT or "\0" in value:
                raise ValueError(f"{name}: {value!r:.40} is longer than {LONGEST_TEXT} characters, or has a NUL")
        _check_choice("via", values["via"], AuditEntry.Via.values)
        _check_choice("outcome", values["outcome"], AuditEntry.Outcome.values)
        _check_choice("act", values["act"], [*ACTS, *{name.partition(".")[0] for name in ACTS}])
        for name in ("since", "until"):
            moment(name, values[name])
        return cls(**values)

    def to_query(self) -> dict[str, str]:
        """Return what ``from_query`` reads, without the conditions that are empty."""
        return {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name)}


def moment(name: str, text: str) -> datetime | None:
    """Return a time; ``None`` for an empty text. Without an offset it is UTC.

    Raises:
        ValueError: the text is no time.
    """
    if not text:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            return timezone.now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        remedy = "write 30m, 1h or 7d ago, or a time such as 2026-11-21T13:00:00Z"
        raise ValueError(f"{name}: {text!r:.100} is no time; {remedy}") from None


def _check_choice(name: str, value: str, choices: list[str]) -> None:
    if value and value not in choices:
        raise ValueError(f"{name}: {value!r:.100} is none of {', '.join(sorted(choices))}")


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
