"""Pages of bulk acts: the list, one act with its progress, the page that asks before one starts, and Stop."""

import uuid
from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from switchyard.audit.services import Who
from switchyard.broker.errors import ActRefused, BrokerError
from switchyard.bulk import services
from switchyard.bulk.kinds import Kind, kind_of
from switchyard.bulk.models import UNFINISHED, BulkAct
from switchyard.console.export import MOST, export_of
from switchyard.console.links import admin_url
from switchyard.console.queue_rights import ARGUMENTS, holds
from switchyard.console.room_view import RoomResponse, require
from switchyard.middleware.clock_comparison import compared_now
from switchyard.middleware.redaction import HIDDEN

VIEW, STOP = "switchyard_bulk.view_bulkact", "switchyard_bulk.stop_bulkact"
TYPED_ABOVE = 100


@require_safe
def acts(request: HttpRequest) -> HttpResponseBase:
    require(request, VIEW)
    if (file := export_of(request, "bulk-acts", lambda: _exported(request))) is not None:
        return file
    text = request.GET.get("before", "")
    before = int(text[:18]) if text.isascii() and text.isdecimal() else None
    rows = services.newest(before=before, limit=services.PAGE + 1)
    shown = rows[: services.PAGE]
    older = shown[-1].act.pk if len(rows) > services.PAGE else None
    going_on = BulkAct.objects.filter(state__in=UNFINISHED).count()
    context = {"title": "Bulk acts", "rows": shown, "older": older, "before": before, "going_on": going_on}
    return _rendered(request, "acts", context)


def _exported(request: HttpRequest) -> Iterator[dict[str, Any]]:
    for seen in services.newest(limit=MOST + 1):
        shown = services.summary(seen)
        if "argument" in shown["filter"] and not holds(request.user, ARGUMENTS, shown["filter"].get("queue", "")):
            shown["filter"] = {**shown["filter"], "argument": HIDDEN}
        yield shown


@require_safe
def act(request: HttpRequest, number: int) -> RoomResponse:
    """Show one act; complete without JavaScript."""
    require(request, VIEW)
    seen = services.find(number)
    undo = seen.texts.taken_back_by
    may_undo = bool(undo and seen.act.done and not seen.act.unfinished) and holds(
        request.user, kind_of(undo).right, seen.act.filter.get("queue", "")
    )
    context = {
        "title": f"Bulk act {number}",
        "seen": seen,
        "may_stop": request.user.has_perm(STOP),
        "may_take_back": may_undo,
        "acts_on": seen.act.filter.get("queue", ""),
    }
    return _rendered(request, "act", context)


@require_safe
def live(request: HttpRequest, number: int) -> RoomResponse:
    """Render the part of an act's page that changes."""
    require(request, VIEW)
    context = {"seen": services.find(number), "may_stop": request.user.has_perm(STOP), "at": timezone.now()}
    return RoomResponse(request, "switchyard_bulk/act_live.html", context)


@require_POST
def stop(request: HttpRequest, number: int) -> HttpResponseBase:
    """Stop an act after the step that it is in."""
    require(request, STOP)
    services.find(number)
    if services.stop(number, who=Who.of_request(request), reason=request.POST.get("reason", "").strip()):
        messages.success(request, "It stops after the step that it is in; what is done stays done.")
    else:
        messages.info(request, "Nothing to stop: it has ended, or is stopping already.")
    return HttpResponseRedirect(reverse("switchyard-bulk-act", args=[number]))


@require_POST
def take_back(request: HttpRequest, number: int) -> HttpResponseBase:
    """Take back what an act did, as far as it has not started, by another act."""
    undo = services.find(number).texts.taken_back_by
    require(request, kind_of(undo).right if undo else STOP)
    try:
        row = services.take_back(number, who=Who.of_request(request), reason=request.POST.get("reason", "").strip())
        return _shown(request, row)
    except ActRefused as error:
        messages.warning(request, str(error))
    except BrokerError:
        messages.warning(request, "The broker does not answer: nothing was taken back. Try again when it is back.")
    return HttpResponseRedirect(reverse("switchyard-bulk-act", args=[number]))


@require_http_methods(["GET", "HEAD", "POST"])
def begin(request: HttpRequest, kind: str) -> HttpResponseBase:
    """Ask whether to start an act on all that match the filter in the address; start it on POST."""
    chosen = kind_of(kind)
    require(request, chosen.right)
    if "argument" in request.GET:  # the number that match tells what an argument is
        require(request, ARGUMENTS, queue=request.GET.get("queue", ""))
    asked = {name: ",".join(values) for name, values in request.GET.lists()}  # ticked rows have one name
    form_id = request.POST.get("form_id", "")[:36].replace("\0", "")
    if (started := _started(form_id)) is not None:
        return _shown(request, started)
    try:
        planned = BulkAct(kind=kind, filter=chosen.check(asked), created_at=compared_now())
        planned.total = chosen.count(planned)
    except ValueError as error:
        return _rendered(request, "begin", {"title": chosen.texts.verb, "wrong": str(error)}, status=400)
    except BrokerError:
        wrong = "The broker does not answer: what matches is unknown. Nothing was changed; reload when it is back."
        return _rendered(request, "begin", {"title": chosen.texts.verb, "wrong": wrong}, status=503)
    refused = _refusal(request, chosen, planned) if request.method == "POST" else ""
    if request.method == "POST" and planned.total and not refused:
        return _start(request, planned, form_id)
    texts = chosen.texts
    context = {
        "title": f"{texts.verb} {texts.counted(planned.total)}?",
        "planned": planned,
        "texts": texts,
        "facts": chosen.facts(planned),
        "conditions": planned.filter.items(),
        "typed": planned.total > TYPED_ABOVE,
        "back": chosen.address(planned.filter) or reverse("switchyard-bulk-acts"),
        "refused": refused,
        "given": request.POST,
        "form_id": form_id or str(uuid.uuid4()),
    }
    return _rendered(request, "begin", context, status=400 if refused else 200)


def _started(form_id: str) -> BulkAct | None:
    """Return the act that a form has started: a double click sends it twice."""
    return BulkAct.objects.filter(form_id=form_id).first() if form_id else None


def _start(request: HttpRequest, planned: BulkAct, form_id: str) -> HttpResponseBase:
    rate, reason = request.POST.get("rate", "").strip(), request.POST.get("reason", "").strip()
    try:
        row = services.start(
            planned.kind, planned.filter, who=Who.of_request(request), reason=reason, rate=int(rate) if rate else None,
            form_id=form_id, plan=_plan(request),
        )  # fmt: skip
    except IntegrityError:
        if (started := _started(form_id)) is None:
            raise
        row = started
    except BrokerError:
        messages.warning(request, "The broker does not answer: nothing was started. Try again when it is back.")
        return HttpResponseRedirect(reverse("switchyard-bulk-acts"))
    return _shown(request, row)


def _shown(request: HttpRequest, row: BulkAct) -> HttpResponseBase:
    if request.user.has_perm(VIEW):
        return HttpResponseRedirect(reverse("switchyard-bulk-act", args=[row.pk]))
    messages.success(request, f"Bulk act {row.pk} has started.")
    return HttpResponseRedirect(
        kind_of(row.kind).address(row.filter) or admin_url("index") or reverse("switchyard-keys")
    )


def _refusal(request: HttpRequest, chosen: Kind, planned: BulkAct) -> str:
    given = request.POST
    text = given.get("count", "")
    count = int(text[:18]) if text.isascii() and text.isdecimal() else 0
    if planned.total > TYPED_ABOVE and given.get("typed", "").strip().replace(",", "") != str(count):
        return f"Nothing was done: type {planned.total} into the field to go on."
    if planned.total > count + max(count // 10, TYPED_ABOVE):
        return f"Nothing was done: {planned.total:,} match by now, not {count:,}. Type the new count to go on."
    if chosen.texts.destructive and not given.get("reason", "").strip():
        return "Nothing was done: enter a reason."
    rate = given.get("rate", "").strip()
    if rate and not (rate.isascii() and rate.isdecimal() and 0 < int(rate[:9]) <= 1_000_000 and len(rate) < 9):
        return "Nothing was done: the rate is a number of items a second, from 1 to 1000000, or empty."
    try:
        services.checked_plan(chosen.texts.rolls_out, _plan(request))
    except ValueError as error:
        return f"Nothing was done: {error}."
    return ""


def _plan(request: HttpRequest) -> dict[str, int]:
    """Return the numbers of a rollout's form; one that is none is out of every range."""
    given = {name: request.POST.get(name, "").strip() for name in services.PLAN}
    return {name: int(text) if text.isascii() and text.isdecimal() else -1 for name, text in given.items() if text}


def _rendered(request: HttpRequest, template: str, context: dict[str, Any], *, status: int = 200) -> RoomResponse:
    page = {"at": timezone.now()} | context
    return RoomResponse(request, f"switchyard_bulk/{template}.html", page, status=status)
