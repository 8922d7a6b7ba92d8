"""Pages of the queues: the list, one queue and the acts on it; and of limits, with the form that overrides one."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from switchyard.audit.services import LONGEST_REASON, Who, notes_on, write_note
from switchyard.broker.admin.limits import KeyState, LimitState
from switchyard.broker.errors import ActRefused, BrokerError, UnknownQueue
from switchyard.broker.stores.yard_facts import queue_subject
from switchyard.broker.topology import Queue
from switchyard.conf import declared_yard
from switchyard.console.export import export_of
from switchyard.console.formatting import parse_until, pause_facts
from switchyard.console.queue_rights import ARGUMENTS, holds
from switchyard.console.room_view import SWITCHED_OFF, RoomResponse, not_answered, require
from switchyard.operations.charts import charts_of
from switchyard.operations.findings.facts import facts_of
from switchyard.operations.overview import shown_rows
from switchyard.operations.queries import queues_json
from switchyard.operations.rows import yard_rows
from switchyard.queues import queries, services
from switchyard.queues import services as known_limits
from switchyard.queues.queries import all_queues_sentence
from switchyard.queues.services import ForeignBroker

VIEW = "switchyard_operations.view_operations"


@require_safe
def queues(request: HttpRequest) -> HttpResponseBase:
    require(request, VIEW)
    if (file := export_of(request, "queues", _exported)) is not None:
        return file
    state = queries.yard_state()
    stats = {} if state is None else {found.queue: found for found in state.queues}
    rows = [
        (row, found.pause and pause_facts(found.pause), found.retry.total, found.dead)
        if found
        else (row, None, None, None)
        for row in (yard_rows(declared_yard(), None) if state is None else shown_rows(facts_of(state)))
        if row.kind == "queue"
        for found in [stats.get(row.name)]
    ]
    sentence = all_queues_sentence([row for row, *_ in rows], away=state is None)
    context = {
        "title": "Queues", "rows": rows, "sentence": sentence, "away": state is None,
        "at": timezone.now(), "off": SWITCHED_OFF if state is None else "",
    }  # fmt: skip
    if request.GET.get("part") == "live":  # what the open page fetches
        return RoomResponse(request, "switchyard_queues/queues_live.html", context)
    return RoomResponse(request, "switchyard_queues/queues.html", context)


def _exported() -> list[dict[str, Any]]:
    if (state := queries.yard_state()) is None:
        raise ActRefused("export", "the broker does not answer; try again once it does")
    return queues_json(state)


@require_safe
def queue(request: HttpRequest, name: str) -> RoomResponse:
    """Show one queue; complete without JavaScript."""
    require(request, VIEW)
    waiting = queries.waiting_actors(queue_of(name).name)
    charts = charts_of(queue_subject(name), "queue", request.GET.get("span", ""), target=name)
    context = {
        "charts": charts,
        "waiting": waiting,
        "looked_through": queries.LOOKED_THROUGH,
        "notes": notes_on("queue", name),
        "may_note": holds(request.user, PAUSE, name),
    }
    return _rendered(request, name, "switchyard_queues/queue.html", context)


@require_safe
def live(request: HttpRequest, name: str) -> RoomResponse:
    """Render the part that changes."""
    return _rendered(request, name, "switchyard_queues/queue_live.html", {})


def queue_of(name: str) -> Queue:
    """Return a queue of the yard; ``Http404`` where it has none of that name."""
    for found in declared_yard().queues:
        if found.name == name:
            return found
    raise Http404(f"The topology has no queue {name}.")


def _rendered(request: HttpRequest, name: str, template: str, context: dict[str, Any]) -> RoomResponse:
    require(request, VIEW)
    seen = queries.QueueView(queue_of(name))
    context |= {"title": f"Queue {name}", "seen": seen, "queue": seen.queue, "acts_on": name}
    return RoomResponse(request, template, context)


PAUSE, PURGE = "switchyard_operations.pause_queue", "switchyard_operations.purge_queue"
TYPED_ABOVE = 100
NOTHING_WAITS = "Nothing waited and nothing was scheduled."

asks = require_http_methods(["GET", "HEAD", "POST"])


@asks
def pause(request: HttpRequest, name: str) -> HttpResponseBase:
    """Ask for a reason and an end, and pause a queue."""
    require(request, PAUSE, queue=name)
    given, reason = request.POST.get("until", "").strip(), _reason(request)

    def act() -> str:
        until = parse_until(given) if given else None
        changed = services.pause(name, who=Who.of_request(request), reason=reason, until=until)
        text = f"{name} is paused: nothing starts, running jobs continue."
        return text if changed else f"{name} was paused already; nothing is changed."

    return _act_or_ask(request, "pause", name, act, until=given)


@require_POST
def note(request: HttpRequest, name: str) -> HttpResponseBase:
    require(request, PAUSE, queue=name)
    try:
        write_note("queue", queue_of(name).name, request.POST.get("text", ""), who=Who.of_request(request))
    except ActRefused as error:
        messages.warning(request, str(error))
    return _back(name)


@asks
def resume(request: HttpRequest, name: str) -> HttpResponseBase:
    """Ask, and resume a queue."""
    require(request, PAUSE, queue=name)

    def act() -> str:
        changed = services.resume(name, who=Who.of_request(request), reason=_reason(request))
        return f"{name} is resumed." if changed else f"{name} was not paused."

    return _act_or_ask(request, "resume", name, act)


@asks
def purge(request: HttpRequest, name: str) -> HttpResponseBase:
    """Ask for a reason, and for the count where it is over 100; then set aside what waits and what is scheduled."""
    require(request, PURGE, queue=name)

    def act() -> str:
        shown, typed = request.POST.get("shown", ""), request.POST.get("typed", "")
        is_over = not shown.isdecimal() or int(shown[:18]) > TYPED_ABOVE
        if is_over and re.sub(r"[\s,.]", "", typed) != shown:
            raise _Incomplete("The typed count is not the count above. Nothing was purged.")
        if not _reason(request):
            raise _Incomplete("Write a reason. Nothing was purged.")
        done = services.purge(name, who=Who.of_request(request), reason=_reason(request))
        return f"{done.count:,} messages are set aside; you can undo it for a minute." if done else NOTHING_WAITS

    return _act_or_ask(request, "purge", name, act, typed_above=TYPED_ABOVE)


@require_POST
def undo(request: HttpRequest, name: str, purge_id: str) -> HttpResponseBase:
    """Put back what a purge set aside."""
    require(request, PURGE, queue=name)
    try:
        undone = services.undo_purge(queue_of(name).name, purge_id, who=Who.of_request(request))
    except BrokerError as error:
        return not_answered(request, error, back=reverse("switchyard-queue", args=[name]))
    except (ActRefused, ForeignBroker) as error:
        messages.error(request, str(error))
    else:
        text = f"{undone.put_back:,} messages are put back, before those that were sent since."
        messages.success(request, text + (f" {services.LEFT_OUT.format(undone.left_out)}" if undone.left_out else ""))
    return _back(name)


@asks
def relocate(request: HttpRequest, name: str) -> HttpResponseBase:
    """Ask for an actor and a queue, and move the actor's waiting messages there."""
    require(request, PAUSE, queue=name)
    queue_of(name)
    given = {key: request.POST.get(key, request.GET.get(key, "")).strip() for key in ("actor", "to")}

    def act() -> str:
        actor, to, reason = given["actor"], given["to"], _reason(request)
        if not actor or not reason:
            raise _Incomplete("Choose an actor and write a reason. Nothing was moved.")
        steps = services.relocate_actor(actor, name, to, who=Who.of_request(request), reason=reason)
        moved = {lane: step.moved for lane, step in steps}  # of each lane the last step, which has its sum
        return f"{sum(moved.values()):,} messages of {actor} wait in {to} now."

    others = [other.name for other in declared_yard().queues if other.name != name]
    return _act_or_ask(request, "relocate", name, act, others=others, actors=queries.waiting_actors(name), **given)


class _Incomplete(Exception):
    """A form that lacks a field which the act needs; the text names it."""


def _act_or_ask(request: HttpRequest, verb: str, name: str, act: Callable[[], str], **given: Any) -> HttpResponseBase:
    """Do the act of a submitted form and show its outcome; else show the form, with the reason of a refusal."""
    queue = queue_of(name)
    refused: str | Exception = ""
    if request.method == "POST":
        try:
            messages.success(request, act())
            return _back(name)
        except (_Incomplete, ActRefused, ForeignBroker, UnknownQueue, BrokerError) as error:
            refused = error
    seen = queries.QueueView(queue)
    title = f"{verb.capitalize()} {name}"
    context = {"reason": _reason(request), **given, "title": title, "seen": seen, "off": seen.switched_off}
    status = 503 if isinstance(refused, BrokerError) else 422 if refused else 200
    context |= {"acts_on": name, "refused": str(refused)}
    return RoomResponse(request, f"switchyard_queues/{verb}.html", context, status=status)


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()[:LONGEST_REASON]


def _back(name: str) -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse("switchyard-queue", args=[name]))


SECTIONS = (
    ("Concurrency and order", ("concurrency", "order")),
    ("Rates", ("rate_limit",)),
    ("Fair queues", ("fair_share",)),
)


@require_safe
def limits(request: HttpRequest) -> RoomResponse:
    """List the limits and circuits of the yard, or with ``limit`` the keys of one."""
    require(request, VIEW)
    limit, value, after = (request.GET.get(name, "")[:1_000] for name in ("limit", "value", "after"))
    if limit:
        require(request, ARGUMENTS)
    try:
        if not limit:
            found, circuits = known_limits.limits_now(arguments=holds(request.user, ARGUMENTS))
            rows = [(title, [_limit_row(one) for one in found if one.kind in kinds]) for title, kinds in SECTIONS]
            context: dict[str, object] = {"title": "Limits", "sections": rows, "circuits": circuits}
            return RoomResponse(request, "switchyard_queues/limits.html", context)
        state = known_limits.find(limit)
        page = known_limits.keys_of(state, value=value, after=after)
    except ActRefused as error:
        raise Http404(str(error)) from error
    except BrokerError as error:
        return not_answered(request, error, back=reverse("switchyard-operations"))
    largest, keys = ([_limit_row(state, one) for one in each] for each in (page.largest, page.keys))
    tables = [("Largest", largest), ("All", keys)]
    title = f"{state.actor or state.queue}, {known_limits.text_of(state)}"
    context = {"title": title, "state": state, "tables": tables, "value": value, "after": after, "next": page.after}
    return RoomResponse(request, "switchyard_queues/limit_keys.html", context)


def _limit_row(state: LimitState, key: KeyState | None = None) -> dict[str, object]:
    """Return a limit, or one of its keys, with its texts and the query of the list of jobs that wait for it."""
    argument = f"{state.argument}={known_limits.as_text(key.value)}" if key is not None and state.argument else ""
    wanted = {"state": "scheduled", "queue": state.queue, "actor": state.actor, "argument": argument}
    jobs = urlencode({name: value for name, value in wanted.items() if value})
    return {
        "state": state,
        "key": key,
        "text": known_limits.text_of(state),
        "still": known_limits.still_text(key or state),
        "jobs": jobs,
    }


@asks
def override(request: HttpRequest) -> HttpResponseBase:
    """Ask for a number, an end and a reason, and override a limit; or end its override."""
    require(request, PAUSE)
    names = ("limit", "n", "until", "reason")
    given = {name: request.POST.get(name, request.GET.get(name, "")).strip() for name in names}
    refused, status = "", 200
    try:
        if request.method == "POST":
            try:
                messages.success(request, _override(request, **given))
                return redirect("switchyard-limits")
            except ActRefused as error:
                refused, status = str(error), 422
        row = _limit_row(known_limits.find(given["limit"]))
    except BrokerError as error:
        return not_answered(request, error, back=reverse("switchyard-limits"))
    context = {**given, **row, "title": "Override a limit", "refused": refused}
    return RoomResponse(request, "switchyard_queues/override.html", context, status=status)


def _override(request: HttpRequest, *, limit: str, n: str, until: str, reason: str) -> str:
    number, end = None, None
    if "restore" not in request.POST:
        if not reason:
            raise ActRefused("override", "write a reason; nothing was changed")
        number = int(n) if n.isascii() and n.isdecimal() and len(n) < 10 else 0
        end = parse_until(until)
    state = known_limits.override(limit, number, until=end, who=Who.of_request(request), reason=reason)
    return f"{state.current:,} count for {state.actor}{f' until {end:%Y-%m-%d %H:%M:%S} UTC' if end else ''}."
