"""Failures of an actor by fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Max, Min

from apps.platform.dead_letters.models import DeadLetter

MOST_GROUPS = 20


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Open dead letters of one actor with one fingerprint."""

    fingerprint: str
    exception: str
    error: str
    letters: int
    first_at: datetime
    last_at: datetime


def of_actor(actor: str) -> list[FailureGroup]:
    """Return an actor's failures, the newest first."""
    letters = DeadLetter.objects.filter(is_open=1, actor=actor)
    rows = list(
        letters.order_by()
        .values("fingerprint")
        .annotate(letters=Count("id"), first_at=Min("died_at"), last_at=Max("died_at"), sample=Max("id"))
        .order_by("-last_at")[:MOST_GROUPS]
    )
    samples = DeadLetter.objects.only("exception", "error").in_bulk([row["sample"] for row in rows])
    return [
        FailureGroup(
            fingerprint=row["fingerprint"],
            exception=samples[row["sample"]].exception,
            error=samples[row["sample"]].error.partition("\n")[0][:200],
            letters=row["letters"],
            first_at=row["first_at"],
            last_at=row["last_at"],
        )
        for row in rows
    ]
