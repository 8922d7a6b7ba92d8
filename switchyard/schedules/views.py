"""Pages of schedules: the list, one schedule with its last ticks, its acts, and those that change stored schedules."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partialmethod
from typing import Any

import dramatiq
from django import forms
from django.contrib import messages
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from dramatiq.actor import Actor
from dramatiq.middleware import MiddlewareError

from switchyard.audit.services import Who
from switchyard.broker.errors import ActRefused, BrokerError
from switchyard.console.export import export_of
from switchyard.console.formatting import SPAN, UNITS_MS, counted, parse_until
from switchyard.console.links import job_url
from switchyard.console.queue_rights import ARGUMENTS, holds
from switchyard.console.room_view import RoomResponse, not_answered, require
from switchyard.jobs.calls import PREFIX, CallForm
from switchyard.middleware.arguments import signature_of
from switchyard.schedules import queries, rows, services
from switchyard.schedules.models import ScheduleState, StoredSchedule
from switchyard.schedules.queries import ScheduleRow
from switchyard.schedules.registry import UTC, Schedule, schedules

CODENAMES = ("view_schedulestate", "run_schedule", "pause_schedule", "edit_schedule")
VIEW, RUN, PAUSE, EDIT = (f"switchyard_schedules.{codename}" for codename in CODENAMES)
LOST = "The database does not answer, so nothing was done; check /readyz, then try again."


def _text(label: str, help_text: str, *, placeholder: str = "", most: int = 100) -> forms.CharField:
    widget = forms.TextInput({"class": "sy-input sy-short", "autocomplete": "off", "placeholder": placeholder})
    return forms.CharField(label=label, required=False, max_length=most, help_text=help_text, widget=widget)


class PauseForm(forms.Form):
    """Reason and end of a pause."""

    reason = forms.CharField(
        max_length=500, strip=True, widget=forms.TextInput(attrs={"class": "sy-input", "autocomplete": "off"}),
        help_text="Shown on this page, in the doctor and in the audit log.",
    )  # fmt: skip
    until = _text(
        "Until, in UTC", "2h, 14:00, or 2026-12-01 06:00. Empty: until somebody resumes it.", placeholder="2h", most=40
    )

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
    found, (stored, faulty) = queries.overview(now), rows.stored_schedules()
    ticks = {row.name: recent.get(row.name, []) for row in found}
    sent = {name: next((tick for tick in reversed(kept) if tick.job_id), None) for name, kept in ticks.items()}
    drawn = [(row, queries.draw(ticks[row.name]), sent[row.name]) for row in found]
    leads = queries.scheduler_leads()
    context = {
        "title": "Schedules", "rows": drawn, "leads": leads, "picture": draw([*schedules(), *stored], found, now),
        "faulty": faulty,
        "headline": queries.headline(found, leads), "at": now, "drawn": any(strip["bars"] for _, strip, _ in drawn),
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


def draw(schedules: Sequence[Schedule], found: Sequence[ScheduleRow], now: datetime) -> dict[str, Any]:
    """Return the next hour: a line with the places of its ticks for each schedule, and the axis; ``{}`` without any."""
    paused = {row.name for row in found if row.paused_at and row.next_tick is None}
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


OVERLAP = (
    ("allow", "allow: send each tick"),
    ("skip", "skip: send none while the job of the last tick has not ended"),
    ("replace", "replace: cancel the job of the last tick, then send"),
)
CATCH_UP = (("once", "once: the last one"), ("skip", "skip: none"), ("all", "all: each of the last hundred"))
# Field of a row -> field of the form where its faults are shown.
SHOWN_AT = {"every_s": "every", "deadline_s": "deadline", "actor": None, rows.ARGUMENTS: None}


def _choice(label: str, choices: Any) -> forms.ChoiceField:
    return forms.ChoiceField(label=label, choices=choices, widget=forms.Select(attrs={"class": "sy-input"}))


class ScheduleForm(CallForm):
    """Form of one stored schedule, by default a new one; ``row`` is to be saved once the form is valid."""

    name = _text("Name", "It stays, and is on the jobs that the schedule sends.")
    cron = _text("Cron", "Minute, hour, day, month and weekday. Empty: by an interval.", placeholder="0 2 * * *")
    every = _text("Or every", "An interval of whole minutes, such as 15m, 2h or 1d.", placeholder="15m")
    time_zone = _text("Time zone", "A name of the IANA database, such as Europe/Berlin.", most=64)
    start = _text("Start, in UTC", "No tick is before. Empty: from now on.", placeholder="2026-12-01 06:00")
    end = _text("End, in UTC", "No tick is after. Empty: without an end.", placeholder="2026-12-31 23:59")
    overlap = _choice("A tick while the job of the last one has not ended", OVERLAP)
    deadline = _text("Deadline", "A tick that is noticed later is dropped. Empty: none is.", placeholder="10m")
    catch_up = _choice("Ticks that came while no scheduler ran", CATCH_UP)
    reason = _text("Reason, for the audit log", "", most=500)

    takes_redacted = False

    def __init__(self, actor: Actor[..., Any], row: StoredSchedule, data: Any = None) -> None:
        super().__init__(actor, data, initial=_initial(actor, row))
        self.row = row
        self.fields["name"].disabled = row.pk is not None

    @property
    def schedule_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if not name.startswith(PREFIX)]

    def clean(self) -> dict[str, Any]:
        """Check the arguments, then the whole row."""
        data = super().clean()
        if self.errors:
            return data
        for field in ("name", "cron", "time_zone", "start", "end", "overlap", "catch_up"):
            setattr(self.row, field, data[field])
        self.row.actor, self.row.args, self.row.kwargs = self.actor.actor_name, list(self.call.args), self.call.kwargs
        self.row.every_s, self.row.deadline_s = data["every"], data["deadline"]
        found = rows.faults(self.row)
        if self.row.pk is None and StoredSchedule.objects.filter(name=self.row.name).exists():
            found["name"] = "a schedule has this name; write another, or change that one"
        for name, fault in found.items():
            self.add_error(SHOWN_AT.get(name, name), fault)
        return data

    def _seconds(self, field: str) -> int | None:
        text = self.cleaned_data[field].strip()
        if not text:
            return None
        if not (span := SPAN.fullmatch(text)):
            raise forms.ValidationError("write a number with s, m, h or d, such as 15m")
        return int(span[1]) * UNITS_MS[span[2]] // 1_000

    def _moment(self, field: str) -> Any:
        try:
            return rows.moment_of(self.cleaned_data[field].strip())
        except ValueError as error:
            raise forms.ValidationError("this is not a time; write 2026-12-01 06:00, in UTC") from error

    clean_every, clean_deadline = partialmethod(_seconds, "every"), partialmethod(_seconds, "deadline")
    clean_start, clean_end = partialmethod(_moment, "start"), partialmethod(_moment, "end")


def _initial(actor: Actor[..., Any], row: StoredSchedule) -> dict[str, Any]:
    found = {name: getattr(row, name) for name in ("name", "cron", "overlap", "catch_up")}
    found["time_zone"] = row.time_zone or UTC
    found |= {name: f"{moment:%Y-%m-%d %H:%M}" for name in ("start", "end") if (moment := getattr(row, name))}
    found |= {"every": _span(row.every_s), "deadline": _span(row.deadline_s)}
    try:
        bound = signature_of(actor.fn).bind(*row.args, **row.kwargs).arguments
    except TypeError:  # of another release
        return found
    return found | {PREFIX + name: json.dumps(value, ensure_ascii=False) for name, value in bound.items()}


def _span(seconds: int | None) -> str:
    if seconds is None:
        return ""
    unit = next(unit for unit in "dhms" if seconds * 1_000 % UNITS_MS[unit] == 0)
    return f"{seconds * 1_000 // UNITS_MS[unit]}{unit}"


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters()
def new(request: HttpRequest) -> HttpResponse:
    """Ask for an actor that people may schedule, then for its schedule; store it."""
    require(request, VIEW, EDIT, ARGUMENTS)
    names, chosen = rows.schedulable_actors(), request.GET.get("actor", "")
    if chosen not in names:
        context = {"title": "New schedule", "actors": names, "unknown": chosen}
        return RoomResponse(request, "switchyard_schedules/choose.html", context)
    return _form(request, dramatiq.get_broker().actors[chosen], StoredSchedule(overlap="allow", catch_up="once"))


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters()
def edit(request: HttpRequest, name: str) -> HttpResponse:
    require(request, VIEW, EDIT, ARGUMENTS)
    row = rows.find_row(name)
    if row.actor not in rows.schedulable_actors():
        messages.error(request, f"{name} cannot be changed: {rows.words_of(rows.faults(row))}")
        return redirect("switchyard-schedules")
    return _form(request, dramatiq.get_broker().actors[row.actor], row)


@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, name: str) -> HttpResponse:
    """Show the page that confirms, and delete a stored schedule."""
    require(request, VIEW, EDIT)
    row, refused = rows.find_row(name), ""
    if request.method == "POST":
        try:
            rows.delete(name, who=Who.of_request(request), reason=request.POST.get("reason", "")[:500])
        except DatabaseError:
            refused = LOST
        else:
            messages.success(request, f"{name} is deleted. Jobs that it sent go on.")
            return redirect("switchyard-schedules")
    context = {"title": f"Delete {name}", "row": row, "refused": refused}
    return RoomResponse(request, "switchyard_schedules/delete.html", context, status=503 if refused else 200)


def _form(request: HttpRequest, actor: Actor[..., Any], row: StoredSchedule) -> HttpResponse:
    sent = request.method == "POST"
    form, status = ScheduleForm(actor, row, request.POST if sent else None), 422 if sent else 200
    if sent and form.is_valid():
        try:
            changed = rows.save(row, who=Who.of_request(request), reason=form.cleaned_data["reason"])
        except DatabaseError:
            form.add_error(None, LOST)
            status = 503
        else:
            done = "is stored; a scheduler sends its ticks from the next minute on" if changed else "is unchanged"
            messages.success(request, f"{row.name} {done}.")
            return redirect("switchyard-schedule", row.name)
    # A template calls what can be called, so it gets no actor: that would run.
    context = {"form": form, "row": row, "actor": actor.actor_name, "queue": actor.queue_name}
    context["title"] = f"Change {row.name}" if row.pk else f"New schedule of {actor.actor_name}"
    return RoomResponse(request, "switchyard_schedules/edit.html", context, status=status)
