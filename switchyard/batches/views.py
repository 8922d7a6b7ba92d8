"""Pages of batches: the list, and one with its members."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest
from django.urls import reverse
from django.views.decorators.http import require_safe

from switchyard.batches import queries
from switchyard.batches.acts import CANCEL, RETRY
from switchyard.broker.errors import BrokerError
from switchyard.broker.stores.batches import CALLBACKS, STATES
from switchyard.console.queue_rights import holds
from switchyard.console.room_view import RoomResponse, not_answered, require

VIEW = "switchyard_jobs.view_job"
LEVELS = {"open": "", "complete": "warn", "succeeded": "ok"}


@require_safe
def batches(request: HttpRequest) -> RoomResponse:
    require(request, VIEW)
    text = request.GET.get("before", "")
    before = int(text[:15]) if text.isascii() and text.isdecimal() else None
    try:
        found, older = queries.newest(before=before)
    except BrokerError as error:
        return not_answered(request, error, back=reverse("switchyard-operations"))
    rows = [(record, LEVELS[record.state], queries.state_of(record)) for record in found]
    context = {"title": "Batches", "rows": rows, "before": before, "older": older}
    return RoomResponse(request, "switchyard_batches/batches.html", context)


@require_safe
def batch(request: HttpRequest, batch_id: str) -> RoomResponse:
    """Show one batch, and a page of its members in one state."""
    require(request, VIEW)
    try:
        record = queries.find(batch_id)
        default = next((state for state in ("failed", "open", "cancelled") if getattr(record, state)), "done")
        state = request.GET.get("state", default)
        page = queries.members(batch_id, state, cursor=request.GET.get("cursor", "0"))
    except ValueError as error:
        raise Http404(str(error)) from error
    except BrokerError as error:
        return not_answered(request, error, back=reverse("switchyard-batches"))
    context: dict[str, Any] = {
        "title": f"Batch {record.name}",
        "record": record,
        "level": LEVELS[record.state],
        "word": queries.state_of(record),
        "state": state,
        "counts": [(name, getattr(record, name)) for name in STATES],
        "members": page.found.items(),
        "cursor": page.cursor if page.cursor != "0" else "",
        "callbacks": [(name, record.sent.get(name, 0)) for name in CALLBACKS if name in record.callbacks],
        "may_cancel": record.open and holds(request.user, CANCEL.right, ""),
        "may_retry": record.failed and holds(request.user, RETRY.right, ""),
    }
    return RoomResponse(request, "switchyard_batches/batch.html", context)
