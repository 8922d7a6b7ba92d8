"""Pages that make, change and delete stored schedules."""

from __future__ import annotations

import json
from functools import partialmethod
from typing import Any

import dramatiq
from django import forms
from django.contrib import messages
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods
from dramatiq.actor import Actor

from switchyard.audit.services import Who
from switchyard.console.formatting import SPAN, UNITS_MS
from switchyard.console.queue_rights import ARGUMENTS
from switchyard.console.room_view import RoomResponse, require
from switchyard.jobs.argument_fields import PREFIX, CallForm
from switchyard.middleware.arguments import signature_of
from switchyard.schedules import rows
from switchyard.schedules.models import StoredSchedule
from switchyard.schedules.triggers import UTC
from switchyard.schedules.views import EDIT, LOST, VIEW

OVERLAP = (
    ("allow", "allow: send each tick"),
    ("skip", "skip: send none while the job of the last tick has not ended"),
    ("replace", "replace: cancel the job of the last tick, then send"),
)
CATCH_UP = (("once", "once: the last one"), ("skip", "skip: none"), ("all", "all: each of the last hundred"))
# Field of a row -> field of the form where its faults are shown.
SHOWN_AT = {"every_s": "every", "deadline_s": "deadline", "actor": None, rows.ARGUMENTS: None}


def _text(label: str, help_text: str, *, placeholder: str = "", most: int = 100) -> forms.CharField:
    widget = forms.TextInput({"class": "sy-input sy-short", "autocomplete": "off", "placeholder": placeholder})
    return forms.CharField(label=label, required=False, max_length=most, help_text=help_text, widget=widget)


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
