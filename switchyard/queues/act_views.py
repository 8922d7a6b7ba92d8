"""Operators' acts on a queue: a page that asks, and the act when it is answered. Nothing changes on GET."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from switchyard.audit.who import Who
from switchyard.broker.errors import ActRefused, BrokerError, UnknownQueue
from switchyard.conf import declared_yard
from switchyard.console.broker_away import SWITCHED_OFF, not_answered
from switchyard.console.formatting import counted
from switchyard.console.times import parse_until
from switchyard.middleware.clock_comparison import compared_now
from switchyard.operations.rows import Row, yard_rows
from switchyard.queues import queries, services
from switchyard.queues.errors import ForeignBroker
from switchyard.queues.facts import PauseFacts
from switchyard.queues.views import check, queue_of

TYPED_ABOVE = 100
NOTHING_WAITS = "Nothing waited and nothing was scheduled."

asks = require_http_methods(["GET", "HEAD", "POST"])


@asks
@never_cache
def pause(request: HttpRequest, name: str) -> HttpResponseBase:
    """Ask for a reason and an end, and pause a queue."""
    check(request, "pause_queue")
    queue = queue_of(name)
    given, reason = request.POST.get("until", "").strip(), _reason(request)
    refused: str | Exception = ""
    if request.method == "POST":
        try:
            until = parse_until(given, now=compared_now()) if given else None
            changed = services.pause(queue.name, who=Who.of_request(request), reason=reason, until=until)
        except (ActRefused, ForeignBroker, BrokerError) as error:
            refused = error
        else:
            text = f"{name} is paused: nothing starts, running jobs continue."
            messages.success(request, text if changed else f"{name} was paused already; nothing is changed.")
            return _back(name)
    return _ask(request, "pause", name, refused, until=given, reason=reason)


@asks
@never_cache
def resume(request: HttpRequest, name: str) -> HttpResponseBase:
    """Ask, and resume a queue."""
    check(request, "pause_queue")
    queue = queue_of(name)
    refused: str | Exception = ""
    if request.method == "POST":
        try:
            changed = services.resume(queue.name, who=Who.of_request(request), reason=_reason(request))
        except (ForeignBroker, BrokerError) as error:
            refused = error
        else:
            messages.success(request, f"{name} is resumed." if changed else f"{name} was not paused.")
            return _back(name)
    return _ask(request, "resume", name, refused, reason=_reason(request))


@asks
@never_cache
def purge(request: HttpRequest, name: str) -> HttpResponseBase:
    """Ask for a reason, and for the count where it is over 100; then set aside what waits and what is scheduled."""
    check(request, "purge_queue")
    queue = queue_of(name)
    refused: str | Exception = ""
    if request.method == "POST":
        shown, typed = request.POST.get("shown", ""), request.POST.get("typed", "")
        if _over(shown, TYPED_ABOVE) and re.sub(r"[\s,.]", "", typed) != shown:
            refused = "The typed count is not the count above. Nothing was purged."
        elif not _reason(request):
            refused = "Write a reason. Nothing was purged."
        else:
            try:
                done = services.purge(queue.name, who=Who.of_request(request), reason=_reason(request))
            except (ForeignBroker, BrokerError) as error:
                refused = error
            else:
                text = (
                    f"{done.count:,} messages are set aside; you can undo it for a minute." if done else NOTHING_WAITS
                )
                messages.success(request, text)
                return _back(name)
    return _ask(request, "purge", name, refused, reason=_reason(request), typed_above=TYPED_ABOVE)


@require_POST
def undo(request: HttpRequest, name: str, purge_id: str) -> HttpResponseBase:
    """Put back what a purge set aside."""
    check(request, "purge_queue")
    queue = queue_of(name)
    try:
        undone = services.undo_purge(queue.name, purge_id, who=Who.of_request(request))
    except BrokerError as error:
        return not_answered(request, error, back=reverse("switchyard-queue", args=[name]))
    except (ActRefused, ForeignBroker) as error:
        messages.error(request, str(error))
    else:
        text = f"{undone.put_back:,} messages are put back, before those that were sent since."
        messages.success(request, text + (f" {services.LEFT_OUT.format(undone.left_out)}" if undone.left_out else ""))
    return _back(name)


@asks
@never_cache
def relocate(request: HttpRequest, name: str) -> HttpResponseBase:
    """Ask for an actor and a queue, and move the actor's waiting messages there."""
    check(request, "pause_queue")
    queue = queue_of(name)
    given = {key: request.POST.get(key, request.GET.get(key, "")).strip() for key in ("actor", "to")}
    refused: str | Exception = ""
    if request.method == "POST":
        try:
            refused, moved = _relocate(request, queue.name, **given)
        except (ForeignBroker, ActRefused, UnknownQueue, BrokerError) as error:
            refused = error
        if not refused:
            messages.success(request, f"{moved:,} messages of {given['actor']} wait in {given['to']} now.")
            return _back(name)
    others = [other.name for other in declared_yard().queues if other.name != name]
    actors = sorted(queries.waiting_actors(queue.name).items(), key=lambda item: (-item[1], item[0]))
    return _ask(request, "relocate", name, refused, reason=_reason(request), others=others, actors=actors, **given)


def _relocate(request: HttpRequest, source: str, *, actor: str, to: str) -> tuple[str, int]:
    """Return why it is refused, or "", and the number of moved messages."""
    if not actor or not _reason(request):
        return "Choose an actor and write a reason. Nothing was moved.", 0
    moved: dict[str, int] = {}
    who = Who.of_request(request)
    for lane, step in services.relocate_actor(actor, source, to, who=who, reason=_reason(request)):
        moved[lane] = step.moved
    return "", sum(moved.values())


def _over(text: str, most: int) -> bool:
    return not text.isdecimal() or int(text[:18]) > most


def _ask(request: HttpRequest, act: str, name: str, refused: str | Exception, **given: Any) -> TemplateResponse:
    seen = queries.view_of(queue_of(name))
    context = {
        **given,
        "title": f"{act.capitalize()} {name}",
        "seen": seen,
        "off": seen.switched_off,
        "refused": str(refused),
    }
    status = 503 if isinstance(refused, BrokerError) else 422 if refused else 200
    return TemplateResponse(request, f"switchyard_queues/{act}.html", context, status=status)


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()[: services.LONGEST_REASON]


def _back(name: str) -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse("switchyard-queue", args=[name]))


VERBS = ("pause", "resume")


@dataclass(frozen=True, slots=True)
class ChosenQueue:
    """A ticked queue with its figures, which are unknown while the broker is unavailable."""

    row: Row
    pause: PauseFacts | None


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def chosen(request: HttpRequest, verb: str) -> HttpResponseBase:
    """Ask for a reason, and pause or resume the queues that ``queue`` names."""
    check(request, "pause_queue")
    if verb not in VERBS:
        raise Http404(f"no act is named {verb}")
    given = request.POST if request.method == "POST" else request.GET
    names = set(given.getlist("queue"))
    queues = [queue.name for queue in declared_yard().queues if queue.name in names]
    reason, until = given.get("reason", "").strip()[: services.LONGEST_REASON], given.get("until", "").strip()
    refused: str | Exception = ""
    if request.method == "POST" and queues:
        refused = _refusal(verb, reason) or _do(request, verb, queues, reason, until)
        if not refused:
            return redirect("switchyard-queues")
    context = {**_context(verb, queues), "refused": str(refused), "reason": reason, "until": until}
    status = 503 if isinstance(refused, BrokerError) else 422 if refused else 200
    return TemplateResponse(request, "switchyard_queues/chosen.html", context, status=status)


def _refusal(verb: str, reason: str) -> str:
    return "Write a reason. Nothing was paused." if verb == "pause" and not reason else ""


def _do(request: HttpRequest, verb: str, queues: Sequence[str], reason: str, until: str) -> str | Exception:
    """Do the act to one queue after the other; return why it is refused before the first one, or ""."""
    who, done, unchanged = Who.of_request(request), 0, 0
    try:
        end = parse_until(until, now=compared_now()) if verb == "pause" and until else None
        for name in queues:
            if verb == "pause":
                changed = services.pause(name, who=who, reason=reason, until=end)
            else:
                changed = services.resume(name, who=who, reason=reason)
            done, unchanged = done + changed, unchanged + (not changed)
    except (ActRefused, ForeignBroker, BrokerError) as error:
        if not done + unchanged:
            return error
        messages.error(request, f"{_text(verb, done, unchanged)} Then it ended: {error}. The others are as they were.")
    else:
        messages.success(request, _text(verb, done, unchanged))
    return ""


def _text(verb: str, done: int, unchanged: int) -> str:
    """Return what an act came to: ``3 queues are paused: nothing starts, running jobs continue.``"""
    are = "queue is" if done == 1 else "queues are"
    effect = "paused: nothing starts, running jobs continue" if verb == "pause" else "resumed"
    text = f"{done} {are} {effect}."
    return f"{text} {counted(unchanged, 'queue')} changed nothing." if unchanged else text


def _context(verb: str, names: Sequence[str]) -> dict[str, Any]:
    state = queries.yard_state()
    stats = {} if state is None else {found.queue: found for found in state.queues}
    rows = {row.name: row for row in yard_rows(declared_yard(), state) if row.kind == "queue"}
    found = []
    for name in names:
        pause = stats[name].pause if name in stats else None
        found.append(ChosenQueue(rows[name], queries.pause_facts(pause) if pause is not None else None))
    # Without the broker's answer nobody knows which of them are paused.
    hit = [each for each in found if verb == "pause" or state is None or each.pause is not None]
    return {
        "title": f"{verb.capitalize()} chosen queues",
        "verb": verb,
        "queues": hit,
        "left": [each for each in found if each not in hit],
        "waiting": sum(each.row.waiting or 0 for each in hit),
        "off": SWITCHED_OFF if state is None else "",
        "paused_already": sum(each.pause is not None for each in hit) if verb == "pause" else 0,
        "counted": counted(len(hit), "queue"),
    }
