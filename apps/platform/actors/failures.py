"""Failures of an actor by fingerprint: open dead letters, and jobs of the last day with a failed attempt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Max, Min

from apps.platform.actors.ended_jobs import HistoryFailure
from apps.platform.dead_letters.models import DeadLetter

MOST_GROUPS = 20


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures of one actor with one fingerprint.

    Args:
        letters: Open dead letters; ``None`` for a user who may not see them.
        jobs: Jobs of the last day, retried ones too; ``None`` for a user who may not see them.
    """

    fingerprint: str
    exception: str
    error: str
    letters: int | None
    jobs: int | None
    first_at: datetime
    last_at: datetime


def of_actor(actor: str, ended: Iterable[HistoryFailure] | None, *, letters: bool) -> list[FailureGroup]:
    """Return an actor's failures, the newest first.

    Args:
        ended: Failures from the history; ``None`` hides them.
        letters: Show dead letters.
    """
    groups = {group.fingerprint: group for group in _open_letters(actor)} if letters else {}
    for failure in ended or ():
        known = groups.get(failure.fingerprint)
        groups[failure.fingerprint] = FailureGroup(
            fingerprint=failure.fingerprint,
            exception=failure.exception,
            error=failure.error,
            letters=known.letters if known else (0 if letters else None),
            jobs=failure.jobs,
            first_at=min(failure.first_at, known.first_at) if known else failure.first_at,
            last_at=max(failure.last_at, known.last_at) if known else failure.last_at,
        )
    return sorted(groups.values(), key=lambda group: group.last_at, reverse=True)[:MOST_GROUPS]


def _open_letters(actor: str) -> list[FailureGroup]:
    rows = list(
        DeadLetter.objects.filter(is_open=1, actor=actor)
        .order_by()
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
            jobs=0,
            first_at=row["first_at"],
            last_at=row["last_at"],
        )
        for row in rows
    ]
