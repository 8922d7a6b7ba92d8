"""The operations room in the admin: the page, and the part of it that the page polls."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

from django.contrib import messages
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from switchyard.audit.models import AuditEntry
from switchyard.audit.notes import notes_on, write_note
from switchyard.audit.queries import newest_entries
from switchyard.audit.services import Who
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import ActRefused
from switchyard.broker.stores.yard_facts import YARD
from switchyard.conf import switchyard_settings
from switchyard.console.room_view import RoomResponse, require
from switchyard.history.models import JobRow
from switchyard.operations import overview as page
from switchyard.operations.charts import charts_of
from switchyard.operations.timeouts import answers_within

# Whether the yard is drawn or a plain table is remembered in the browser.
YARD_COOKIE, YARD_COOKIE_S = "switchyard_yard", 31_536_000
MOST_CHANGES, TOGETHER = 6, timedelta(minutes=1)
VIEW, NOTE = "switchyard_operations.view_operations", "switchyard_operations.pause_queue"
# Target of the notes on the overview, and how long the newest one stands below the verdict.
NOTED, PINNED = "overview", timedelta(days=1)


@require_safe
def overview(request: HttpRequest) -> RoomResponse:
    """Render the whole page, complete without JavaScript."""
    require(request, VIEW)
    chosen = request.GET.get("yard", "")
    plain = chosen == "table" if chosen else request.COOKIES.get(YARD_COOKIE) == "table"
    charts = charts_of(YARD, "yard", request.GET.get("span", ""))
    context = {
        "title": "Overview", "charts": charts, "notes": _notes(), "note_url": reverse("switchyard-operations-note"),
        "may_note": request.user.has_perm(NOTE), **_content(request, plain=plain),
    }  # fmt: skip
    response = RoomResponse(request, "switchyard_operations/overview.html", context)
    if chosen:
        shown = "table" if plain else "drawing"
        response.set_cookie(
            YARD_COOKIE, shown, max_age=YARD_COOKIE_S, samesite="Lax", httponly=True, secure=request.is_secure()
        )
    return response


@require_safe
def live(request: HttpRequest) -> RoomResponse:
    """Render the part that changes."""
    require(request, VIEW)
    plain = request.COOKIES.get(YARD_COOKIE) == "table"
    return RoomResponse(request, "switchyard_operations/live.html", _content(request, plain=plain))


@require_POST
def note(request: HttpRequest) -> HttpResponseRedirect:
    require(request, NOTE)
    try:
        write_note("room", NOTED, request.POST.get("text", ""), who=Who.of_request(request))
    except ActRefused as error:
        messages.warning(request, str(error))
    return redirect("switchyard-operations")


def _notes() -> list[AuditEntry]:
    with suppress(DatabaseError), answers_within(page.DATABASE_TIMEOUT_S):
        return notes_on("room", NOTED)
    return []


def _content(request: HttpRequest, *, plain: bool) -> dict[str, Any]:
    room = page.overview()
    steps = _first_steps(room)
    return {
        "room": room,
        "plain": plain,
        "changes": _changes(request, room),
        "first_steps": steps,
        "is_ready": steps is not None and room.verdict.level == "ok",
        "pinned": next((note for note in _notes() if timezone.now() - note.at < PINNED), None),
    }


def _first_steps(room: page.Room) -> dict[str, Any] | None:
    """Return the first steps, shown before the first job; ``None`` once there was one, or where that is unknown."""
    if room.away or any(row.waiting or row.held or row.busy or row.dead for row, _ in room.rows):
        return None
    with suppress(DatabaseError), answers_within(page.DATABASE_TIMEOUT_S):
        if not JobRow.objects.exists():
            urls = switchyard_settings().alert_urls
            return {"only_log": all(url == "log:" or url.endswith("=log:") for url in urls)}
    return None


class Change(NamedTuple):
    """An act of a person, or a host that started pools with a release and settings, within a minute."""

    at: datetime
    act: dict[str, Any] | None = None
    host: str = ""
    release: str = ""
    settings: str = ""
    pools: tuple[str, ...] = ()


def _starts(room: page.Room) -> list[Change]:
    reports = [report for pool in room.pools if pool["state"] for report in pool["state"].reports]
    starts: list[Change] = []
    for report in sorted(reports, key=attrgetter("host", "release", "settings", "started_at")):
        of = report.host, report.release, report.settings, (report.pool,)
        start = Change(datetime_of(report.started_at), None, *of)
        if starts and starts[-1][2:5] == start[2:5] and start.at - starts[-1].at <= TOGETHER:
            start = start._replace(pools=(*starts.pop().pools, report.pool))
        starts.append(start)
    return starts


def _changes(request: HttpRequest, room: page.Room) -> list[Change] | None:
    """Return the newest acts and starts of a day; ``None`` for who may not see acts, and without the database."""
    if not request.user.has_perm("switchyard_audit.view_auditentry"):
        return None
    since = timezone.now() - timedelta(days=1)
    with suppress(DatabaseError), answers_within(page.DATABASE_TIMEOUT_S):
        acts = [Change(shown["entry"].at, shown) for shown in newest_entries(since=since, limit=MOST_CHANGES)]
        starts = [start for start in _starts(room) if start.at >= since]
        return sorted([*acts, *starts], key=attrgetter("at"), reverse=True)[:MOST_CHANGES]
    return None
