"""Failures of an actor by fingerprint: open dead letters, and jobs of the last day with a failed attempt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Max

from switchyard.actors.ended_jobs import HistoryFailure
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.queries import first_seen

MOST_GROUPS = 20


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures of one actor with one fingerprint.

    Args:
        letters: Open dead letters; ``None`` for a user who may not see them.
        jobs: Jobs of the last day, retried ones too; ``None`` for a user who may not see them.
        first_at: Of every letter of the fingerprint, also of those that are no longer open.
        release: Of the first failure; "" where the history does not reach back to it.
    """

    fingerprint: str
    exception: str
    error: str
    letters: int | None
    jobs: int | None
    first_at: datetime
    last_at: datetime
    release: str = ""


def of_actor(actor: str, ended: Iterable[HistoryFailure] | None, *, letters: bool) -> list[FailureGroup]:
    """Return an actor's failures, the newest first.

    Args:
        ended: Failures from the history; ``None`` hides them.
        letters: Show dead letters.
    """
    groups = {group.fingerprint: group for group in _open_letters(actor)} if letters else {}
    for failure in ended or ():
        known = groups.get(failure.fingerprint)
        is_first = known is None or failure.first_at <= known.first_at
        groups[failure.fingerprint] = FailureGroup(
            fingerprint=failure.fingerprint,
            exception=failure.exception,
            error=failure.error,
            letters=known.letters if known else (0 if letters else None),
            jobs=failure.jobs,
            first_at=min(failure.first_at, known.first_at) if known else failure.first_at,
            last_at=max(failure.last_at, known.last_at) if known else failure.last_at,
            release=failure.release if is_first else "",
        )
    return sorted(groups.values(), key=lambda group: group.last_at, reverse=True)[:MOST_GROUPS]


def _open_letters(actor: str) -> list[FailureGroup]:
    rows = list(
        DeadLetter.objects.filter(is_open=1, actor=actor)
        .order_by()
        .values("fingerprint")
        .annotate(letters=Count("id"), last_at=Max("died_at"), sample=Max("id"))
        .order_by("-last_at")[:MOST_GROUPS]
    )
    first = first_seen([row["fingerprint"] for row in rows])
    samples = DeadLetter.objects.only("exception", "error").in_bulk([row["sample"] for row in rows])
    return [
        FailureGroup(
            fingerprint=row["fingerprint"],
            exception=samples[row["sample"]].exception,
            error=samples[row["sample"]].error.partition("\n")[0][:200],
            letters=row["letters"],
            jobs=0,
            first_at=first[row["fingerprint"]],
            last_at=row["last_at"],
        )
        for row in rows
    ]
