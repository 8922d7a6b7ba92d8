"""Pages of limits and circuits: the list, the keys of one limit, and the form that overrides it for a time."""

from __future__ import annotations

from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from switchyard.audit.services import Who
from switchyard.broker.admin.limits import KeyState, LimitState
from switchyard.broker.errors import ActRefused, BrokerError
from switchyard.console.formatting import parse_until
from switchyard.console.queue_rights import ARGUMENTS, holds
from switchyard.console.room_view import RoomResponse, not_answered, require
from switchyard.queues import limits as queries

PAUSE = "switchyard_operations.pause_queue"
VIEW = "switchyard_operations.view_operations"
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
            found, circuits = queries.limits_now(arguments=holds(request.user, ARGUMENTS))
            rows = [(title, [_row(one) for one in found if one.kind in kinds]) for title, kinds in SECTIONS]
            context: dict[str, object] = {"title": "Limits", "sections": rows, "circuits": circuits}
            return RoomResponse(request, "switchyard_queues/limits.html", context)
        state = queries.find(limit)
        page = queries.keys_of(state, value=value, after=after)
    except ActRefused as error:
        raise Http404(str(error)) from error
    except BrokerError as error:
        return not_answered(request, error, back=reverse("switchyard-operations"))
    tables = [
        (name, [_row(state, one) for one in each]) for name, each in (("Largest", page.largest), ("All", page.keys))
    ]
    title = f"{state.actor or state.queue}, {queries.text_of(state)}"
    context = {"title": title, "state": state, "tables": tables, "value": value, "after": after, "next": page.after}
    return RoomResponse(request, "switchyard_queues/limit_keys.html", context)


def _row(state: LimitState, key: KeyState | None = None) -> dict[str, object]:
    """Return a limit, or one of its keys, with its texts and the query of the list of jobs that wait for it."""
    argument = f"{state.argument}={queries.as_text(key.value)}" if key is not None and state.argument else ""
    wanted = {"state": "scheduled", "queue": state.queue, "actor": state.actor, "argument": argument}
    jobs = urlencode({name: value for name, value in wanted.items() if value})
    return {
        "state": state,
        "key": key,
        "text": queries.text_of(state),
        "still": queries.still_text(key or state),
        "jobs": jobs,
    }


@require_http_methods(["GET", "HEAD", "POST"])
def override(request: HttpRequest) -> HttpResponseBase:
    """Ask for a number, an end and a reason, and override a limit; or end its override."""
    require(request, PAUSE)
    names = ("limit", "n", "until", "reason")
    given = {name: request.POST.get(name, request.GET.get(name, "")).strip() for name in names}
    refused, status = "", 200
    try:
        if request.method == "POST":
            try:
                messages.success(request, _act(request, **given))
                return redirect("switchyard-limits")
            except ActRefused as error:
                refused, status = str(error), 422
        row = _row(queries.find(given["limit"]))
    except BrokerError as error:
        return not_answered(request, error, back=reverse("switchyard-limits"))
    context = {**given, **row, "title": "Override a limit", "refused": refused}
    return RoomResponse(request, "switchyard_queues/override.html", context, status=status)


def _act(request: HttpRequest, *, limit: str, n: str, until: str, reason: str) -> str:
    number, end = None, None
    if "restore" not in request.POST:
        if not reason:
            raise ActRefused("override", "write a reason; nothing was changed")
        number = int(n) if n.isascii() and n.isdecimal() and len(n) < 10 else 0
        end = parse_until(until)
    state = queries.override(limit, number, until=end, who=Who.of_request(request), reason=reason)
    return f"{state.current:,} count for {state.actor}{f' until {end:%Y-%m-%d %H:%M:%S} UTC' if end else ''}."
