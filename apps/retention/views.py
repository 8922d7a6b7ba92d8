"""The page of the retention: what is kept, how much of it, since when and for how long. Only to read."""

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.views.decorators.http import require_safe

from apps.retention.actors import apply_retention
from apps.retention.kinds import kinds
from apps.retention.models import FileRemoval, KindState
from switchyard.console.room_view import RoomResponse, require

RIGHT, SCHEDULES = "switchyard_operations.view_operations", "switchyard_schedules.view_schedulestate"


@require_safe
def retention(request: HttpRequest) -> RoomResponse:
    """Show each kind with the figures of its last run."""
    require(request, RIGHT)
    days, name = settings.RETENTION_DAYS, apply_retention.actor_name
    states = {state.name: state for state in KindState.objects.all()}
    context = {
        "title": "Retention",
        "rows": [
            {"kind": kind, "days": days.get(kind.name, 0), "state": states.get(kind.name)}
            for kind in sorted(kinds(), key=lambda kind: kind.title)
        ],
        "measured": any(state.ended_at for state in states.values()),
        "left": FileRemoval.objects.count(),
        "schedule": reverse("switchyard-schedule", args=[name]) if request.user.has_perm(SCHEDULES) else "",
        "actor": name,
    }
    return RoomResponse(request, "switchyard_retention/retention.html", context)
