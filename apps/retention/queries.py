"""Reads of the retention: each kind with its days and the figures of its last run."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from apps.retention.kinds import RetentionKind, kinds
from apps.retention.models import FileRemoval, KindState


@dataclass(frozen=True, slots=True)
class KeptKind:
    """One kind as its last run found it.

    Args:
        days: Days for which it is kept; 0 for good.
        state: ``None`` before the first run has come to it.
    """

    kind: RetentionKind
    days: int
    state: KindState | None

    @property
    def measured(self) -> bool:
        """Whether a run has come to its end, so that there are figures."""
        return self.state is not None and self.state.ended_at is not None


def kept_kinds() -> list[KeptKind]:
    """Return every kind, by its title."""
    days, states = settings.RETENTION_DAYS, {state.name: state for state in KindState.objects.all()}
    found = [KeptKind(kind, days.get(kind.name, 0), states.get(kind.name)) for kind in kinds()]
    return sorted(found, key=lambda kept: kept.kind.title)


def removals_left() -> int:
    return FileRemoval.objects.count()
