"""The operations room in the admin: the page, and the part of it that the page polls."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from switchyard.audit.queries import ShownEntry, newest_entries
from switchyard.conf import switchyard_settings
from switchyard.console.room_view import RoomResponse, require
from switchyard.history.models import JobRow
from switchyard.operations import overview as page
from switchyard.operations.timeouts import answers_within

# Whether the yard is drawn or a plain table is remembered in the browser.
YARD_COOKIE, YARD_COOKIE_S = "switchyard_yard", 31_536_000
MOST_CHANGES = 6


@require_safe
@never_cache
def overview(request: HttpRequest) -> RoomResponse:
    """Render the whole page, complete without JavaScript."""
    require(request, "switchyard_operations.view_operations")
    chosen = request.GET.get("yard", "")
    plain = chosen == "table" if chosen else request.COOKIES.get(YARD_COOKIE) == "table"
    context = {"title": "Overview", **_content(request, plain=plain)}
    response = RoomResponse(request, "switchyard_operations/overview.html", context)
    if chosen:
        shown = "table" if plain else "drawing"
        response.set_cookie(
            YARD_COOKIE, shown, max_age=YARD_COOKIE_S, samesite="Lax", httponly=True, secure=request.is_secure()
        )
    return response


@require_safe
@never_cache
def live(request: HttpRequest) -> RoomResponse:
    """Render the part that changes."""
    require(request, "switchyard_operations.view_operations")
    plain = request.COOKIES.get(YARD_COOKIE) == "table"
    return RoomResponse(request, "switchyard_operations/live.html", _content(request, plain=plain))


def _content(request: HttpRequest, *, plain: bool) -> dict[str, Any]:
    room = page.overview()
    steps = _first_steps(room)
    is_ready = steps is not None and room.verdict.level == "ok"
    return {"room": room, "plain": plain, "changes": _changes(request), "first_steps": steps, "is_ready": is_ready}


def _first_steps(room: page.Room) -> dict[str, Any] | None:
    """Return what a page says before the first job; ``None`` once there was one, or where that is unknown."""
    if room.away or any(row.waiting or row.held or row.busy or row.dead for row, _ in room.rows):
        return None
    try:
        with answers_within(page.DATABASE_TIMEOUT_S):
            if JobRow.objects.exists():
                return None
    except DatabaseError:
        return None
    return {"only_log": all(url == "log:" or url.endswith("=log:") for url in switchyard_settings().alert_urls)}


def _changes(request: HttpRequest) -> list[ShownEntry] | None:
    """Return the newest acts of a day; ``None`` for who may not see them, and while the database is unavailable."""
    if not request.user.has_perm("switchyard_audit.view_auditentry"):
        return None
    try:
        with answers_within(page.DATABASE_TIMEOUT_S):
            return newest_entries(since=timezone.now() - timedelta(days=1), limit=MOST_CHANGES)
    except DatabaseError:
        return None
