"""The page of the retention: what is kept, how much of it, since when and for how long. Only to read."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.views.decorators.http import require_safe

from apps.retention.actors import apply_retention
from apps.retention.kinds import RetentionKind, kinds
from apps.retention.models import FileRemoval, KindState
from switchyard.console.room_view import RoomResponse, require

RIGHT, SCHEDULES = "switchyard_operations.view_operations", "switchyard_schedules.view_schedulestate"


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


@require_safe
def retention(request: HttpRequest) -> RoomResponse:
    """Show each kind with the figures of its last run."""
    require(request, RIGHT)
    kept, name = kept_kinds(), apply_retention.actor_name
    context = {
        "title": "Retention",
        "rows": kept,
        "measured": any(one.measured for one in kept),
        "left": FileRemoval.objects.count(),
        "schedule": reverse("switchyard-schedule", args=[name]) if request.user.has_perm(SCHEDULES) else "",
        "actor": name,
    }
    return RoomResponse(request, "switchyard_retention/retention.html", context)
