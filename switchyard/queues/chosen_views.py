"""Pause or resume of the queues that were ticked in the list: a page that asks, and the act on one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from switchyard.audit.who import Who
from switchyard.broker.errors import ActRefused, BrokerError
from switchyard.conf import declared_yard
from switchyard.console.broker_away import SWITCHED_OFF
from switchyard.console.formatting import counted
from switchyard.console.times import parse_until
from switchyard.middleware.clock_comparison import compared_now
from switchyard.operations.rows import Row, yard_rows
from switchyard.queues import queries, services
from switchyard.queues.errors import ForeignBroker
from switchyard.queues.facts import PauseFacts
from switchyard.queues.views import check

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
    context = {
        **_context(verb, queues),
        "refused": str(refused),
        "reason": reason,
        "until": until,
    }
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
