"""The page of the retention: what is kept, how much of it, since when and for how long. Only to read."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import reverse
from django.views.decorators.http import require_safe

from apps.retention.actors import apply_retention
from apps.retention.queries import kept_kinds, removals_left
from switchyard.console.room_view import RoomResponse, require

RIGHT, SCHEDULES = "switchyard_operations.view_operations", "switchyard_schedules.view_schedulestate"


@require_safe
def retention(request: HttpRequest) -> RoomResponse:
    """Show each kind with the figures of its last run."""
    require(request, RIGHT)
    kept, name = kept_kinds(), apply_retention.actor_name
    context = {
        "title": "Retention",
        "rows": kept,
        "measured": any(one.measured for one in kept),
        "left": removals_left(),
        "schedule": reverse("switchyard-schedule", args=[name]) if request.user.has_perm(SCHEDULES) else "",
        "actor": name,
    }
    return RoomResponse(request, "switchyard_retention/retention.html", context)
