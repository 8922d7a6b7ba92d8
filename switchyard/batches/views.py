"""Pages of batches: the list, and one with its members; and acts on a batch as a whole."""

from collections.abc import Sequence
from typing import Any, Final

from django.http import Http404, HttpRequest
from django.urls import reverse
from django.views.decorators.http import require_safe

from switchyard.batches import queries, services
from switchyard.broker.errors import BrokerError, NotFound
from switchyard.broker.stores.batches import CALLBACKS, STATES, BatchRecord, MemberState
from switchyard.bulk.kinds import Item, Kind, Taken
from switchyard.bulk.models import BulkAct
from switchyard.console.links import page_url
from switchyard.console.queue_rights import holds
from switchyard.console.room_view import RoomResponse, not_answered, require
from switchyard.dead_letters.bulk_moves import BulkMove
from switchyard.dead_letters.models import OPEN_STATES, DeadLetter
from switchyard.jobs.bulk import BulkCancel
from switchyard.jobs.services import request_cancel


def _record(filter: dict[str, Any]) -> BatchRecord:
    """Return the batch that a filter names; ``ValueError`` where it names none, or something else as well."""
    if list(filter) != ["batch"]:
        raise ValueError(f"filter of a batch: write batch=ID alone, not {', '.join(filter) or 'nothing'}")
    try:
        return queries.find(str(filter["batch"]))
    except NotFound as error:
        raise ValueError(str(error)) from error


class OfBatch:
    """Common part of the acts on a batch as a whole: its filter, and its line on the page that asks."""

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        record = _record(act.filter)
        counts = f"{record.done:,} done, {record.failed:,} failed, {record.cancelled:,} cancelled"
        return [("Batch", record.name), ("Members", f"{counts}, {record.open:,} not ended")]

    def address(self, filter: dict[str, Any]) -> str:
        return page_url("switchyard-batch", filter["batch"])

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        return {"batch": _record(filter).id}

    def queues(self, act: BulkAct) -> list[str] | None:
        """Return ``None``: members may be in any queue."""
        return None


def _page(act: BulkAct, state: MemberState, limit: int) -> tuple[list[Item], dict[str, Any], bool]:
    """Return the next members, each with its queue, where the ones after them begin, and whether there may be some.

    A page of the server may be larger than asked for: what is left of it is in the cursor.
    """
    left, cursor = act.cursor.get("left"), act.cursor.get("scan", "0")
    if not left:
        found, cursor = services.batches().members(act.filter["batch"], state, cursor=cursor, count=limit)
        left = [[id_, queue] for id_, queue in found.items()]
    return left[:limit], {"scan": cursor, "left": left[limit:]}, len(left) > limit or cursor != "0"


class CancelMembers(OfBatch, BulkCancel):
    """Cancel the members of a batch that have not ended; it takes no more."""

    act = "batch.cancel"

    def count(self, act: BulkAct) -> int:
        """Return how many members have not ended."""
        return _record(act.filter).open

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Return the next members that have not ended, once the batch takes no more."""
        services.batches().note(act.filter["batch"], "cancelled")
        items, place, more = _page(act, "open", limit)
        return Taken(items, place, more=more)

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Cancel the members; one that is not in the queue that it was sent to is looked for everywhere."""
        answers = super().apply(act, items, repeated=repeated)
        elsewhere = [at for at, answer in enumerate(answers) if answer == "ended before"]
        for at in elsewhere:
            if request_cancel(items[at][0]) in ("cancelled", "asked"):
                answers[at] = ""
        return answers


class RetryMembers(OfBatch, BulkMove):
    """Requeue the dead letters of a batch's failed members."""

    def __init__(self) -> None:
        super().__init__("requeue")
        self.act = "batch.retry"

    def count(self, act: BulkAct) -> int:
        """Return how many members have failed; those without a dead letter are left."""
        return _record(act.filter).failed

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Claim the letters of the next failed members."""
        members, place, more = _page(act, "failed", limit)
        letters = DeadLetter.objects.select_for_update().filter(message_id__in=[member[0] for member in members])
        rows = list(letters.filter(state__in=OPEN_STATES, died_at__lte=act.created_at))
        items, skips = self.claim(act, rows)
        if lacking := len(members) - len(rows):
            skips["it has no open dead letter"] = lacking
        return Taken(items, place, more=more, skips=skips)


CANCEL: Final[Kind] = CancelMembers()
RETRY: Final[Kind] = RetryMembers()


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
