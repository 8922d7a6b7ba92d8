"""Pages of schedules: the list, one schedule with its last ticks, and the acts run now, pause and resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.http import require_POST, require_safe
from dramatiq.middleware import MiddlewareError

from switchyard.audit.services import Who
from switchyard.broker.errors import ActRefused, BrokerError
from switchyard.console.export import export_of
from switchyard.console.formatting import counted, parse_until
from switchyard.console.links import job_url
from switchyard.console.queue_rights import ARGUMENTS, holds
from switchyard.console.room_view import RoomResponse, not_answered, require
from switchyard.schedules import queries, services
from switchyard.schedules.models import ScheduleState
from switchyard.schedules.queries import ScheduleRow
from switchyard.schedules.registry import Schedule, schedules
from switchyard.schedules.rows import stored_schedules

CODENAMES = ("view_schedulestate", "run_schedule", "pause_schedule", "edit_schedule")
VIEW, RUN, PAUSE, EDIT = (f"switchyard_schedules.{codename}" for codename in CODENAMES)
LOST = "The database does not answer, so nothing was done; check /readyz, then try again."


class PauseForm(forms.Form):
    """Reason and end of a pause."""

    reason = forms.CharField(
        max_length=500, strip=True, widget=forms.TextInput(attrs={"class": "sy-input", "autocomplete": "off"}),
        help_text="Shown on this page, in the doctor and in the audit log.",
    )  # fmt: skip
    until = forms.CharField(
        required=False, max_length=40, label="Until, in UTC",
        widget=forms.TextInput(attrs={"class": "sy-input sy-short", "autocomplete": "off", "placeholder": "2h"}),
        help_text="2h, 14:00, or 2026-12-01 06:00. Empty: until somebody resumes it.",
    )  # fmt: skip

    def clean_until(self) -> Any:
        """Return the end as a time, ``None`` without one; ``ValidationError`` for one that is not in the future."""
        text = self.cleaned_data["until"].strip()
        try:
            return parse_until(text) if text else None
        except ActRefused as error:
            raise forms.ValidationError(str(error)) from error


@require_safe
def all_schedules(request: HttpRequest) -> HttpResponse:
    require(request, VIEW)
    if (file := export_of(request, "schedules", lambda: map(asdict, queries.overview(timezone.now())))) is not None:
        return file
    recent, now = queries.recent_ticks(), timezone.now()
    found, (stored, faulty) = queries.overview(now), stored_schedules()
    ticks = {row.name: recent.get(row.name, []) for row in found}
    sent = {name: next((tick for tick in reversed(kept) if tick.job_id), None) for name, kept in ticks.items()}
    rows = [(row, queries.draw(ticks[row.name]), sent[row.name]) for row in found]
    leads = queries.scheduler_leads()
    context = {
        "title": "Schedules", "rows": rows, "leads": leads, "picture": draw([*schedules(), *stored], found, now),
        "faulty": faulty,
        "headline": queries.headline(found, leads), "at": now, "drawn": any(strip["bars"] for _, strip, _ in rows),
        "paused": sum(row.paused_at is not None for row in found),
    }  # fmt: skip
    return _render(request, "list.html", context)


@require_safe
def schedule(request: HttpRequest, name: str) -> HttpResponse:
    require(request, VIEW)
    return _page(request, services.find(name), PauseForm())


@require_POST
def run(request: HttpRequest, name: str) -> HttpResponse:
    """Enqueue the schedule's actor now, and link the job."""
    require(request, VIEW, RUN)
    services.find(name)  # before an act of which the audit log has a row
    try:
        job_id = services.run_now(name, who=Who.of_request(request))
    except BrokerError as error:
        return not_answered(request, error, back=reverse("switchyard-schedule", args=[name]))
    except MiddlewareError as error:
        messages.error(request, f"Not sent: {error}")
    else:
        link = format_html('{} runs now as job <a class="sy-link" href="{}">{}</a>.', name, job_url(job_id), job_id)
        messages.success(request, link)
    return redirect("switchyard-schedule", name)


@require_POST
def pause(request: HttpRequest, name: str) -> HttpResponse:
    """Pause the schedule; show the form again with its errors, as 422."""
    require(request, VIEW, PAUSE)
    found, form = services.find(name), PauseForm(request.POST)
    if not form.is_valid():
        return _page(request, found, form, status=422)
    given = form.cleaned_data
    try:
        services.pause(name, who=Who.of_request(request), reason=given["reason"], until=given["until"])
    except DatabaseError:
        messages.error(request, LOST)
    else:
        messages.success(request, f"{name} is paused. Its ticks are missed until it is resumed.")
    return redirect("switchyard-schedule", name)


@require_POST
def resume(request: HttpRequest, name: str) -> HttpResponse:
    """Resume the schedule, and report how many ticks it missed."""
    require(request, VIEW, PAUSE)
    services.find(name)
    try:
        missed = services.resume(name, who=Who.of_request(request))
    except DatabaseError:
        messages.error(request, LOST)
        return redirect("switchyard-schedule", name)
    if missed is None:
        messages.warning(request, f"{name} was not paused.")
    else:
        messages.success(request, f"{name} is resumed. It missed {counted(missed, 'tick')}, which will not be sent.")
    return redirect("switchyard-schedule", name)


def _page(request: HttpRequest, found: Schedule, form: PauseForm, *, status: int = 200) -> HttpResponse:
    state, ticks = ScheduleState.objects.filter(actor=found.name).first(), queries.last_ticks(found.name)
    context = {
        "title": found.name,
        "row": queries.row_of(found, state, timezone.now()),
        "ticks": ticks,
        "kept": queries.KEPT,
        "form": form,
        "arguments": queries.arguments_of(found) if holds(request.user, ARGUMENTS) else None,
        "leads": queries.scheduler_leads(),
    }
    return _render(request, "schedule.html", context, status=status)


def _render(request: HttpRequest, template: str, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    names = {"may_run": RUN, "may_pause": PAUSE, "may_edit": EDIT}
    rights = {name: request.user.has_perm(right) for name, right in names.items()}
    return RoomResponse(request, f"switchyard_schedules/{template}", rights | context, status=status)


WIDTH_PX, LEFT_PX, LINE_PX, TOP_PX = 1_000, 200, 30, 8
HOUR, STEP = timedelta(hours=1), timedelta(minutes=10)
MOST_TICKS = 60


def draw(schedules: Sequence[Schedule], rows: Sequence[ScheduleRow], now: datetime) -> dict[str, Any]:
    """Return the next hour: a line with the places of its ticks for each schedule, and the axis; ``{}`` without any."""
    paused = {row.name for row in rows if row.paused_at and row.next_tick is None}
    lines: list[dict[str, Any]] = []
    for schedule in schedules:
        ticks = [] if schedule.name in paused else _ticks(schedule, now)
        if ticks:
            words = f"{schedule.name}: {', '.join(f'{tick:%H:%M}' for tick in ticks)}"
            line = {"name": schedule.name, "y": TOP_PX + len(lines) * LINE_PX, "words": words}
            lines.append(line | {"marks": [_place(tick, now) for tick in ticks]})
    if not lines:
        return {}
    first = now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0) + STEP
    axis = [(_place(first + number * STEP, now), f"{first + number * STEP:%H:%M}") for number in range(6)]
    return {"lines": lines, "axis": axis, "height": TOP_PX + len(lines) * LINE_PX}


def _ticks(schedule: Schedule, now: datetime) -> list[datetime]:
    found: list[datetime] = []
    tick = schedule.next(now)
    while tick is not None and tick <= now + HOUR and len(found) < MOST_TICKS:
        found.append(tick)
        tick = schedule.next(tick)
    return found


def _place(moment: datetime, now: datetime) -> int:
    return LEFT_PX + round((moment - now) / HOUR * (WIDTH_PX - LEFT_PX - 20))
