"""Pages of the queues: the list, one queue, and the part of its page that the page polls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from switchyard.broker.topology import Queue
from switchyard.conf import declared_yard
from switchyard.console.broker_away import SWITCHED_OFF
from switchyard.console.room_view import require
from switchyard.console.sort_heads import SortColumn, SortHead, heads_of
from switchyard.operations.findings.facts import facts_of
from switchyard.operations.rows import Row, yard_rows
from switchyard.operations.yard.state_words import shown_rows
from switchyard.queues import queries
from switchyard.queues.facts import all_queues_sentence


@require_safe
@never_cache
def queues(request: HttpRequest) -> TemplateResponse:
    """List every queue."""
    require(request, "switchyard_operations.view_operations")
    state = queries.yard_state()
    stats = {} if state is None else {found.queue: found for found in state.queues}
    rows = [
        (row, queries.pause_facts(found.pause), found.retry.total, found.dead) if found else (row, None, None, None)
        for row in (yard_rows(declared_yard(), None) if state is None else shown_rows(facts_of(state)))
        if row.kind == "queue"
        for found in [stats.get(row.name)]
    ]
    sentence = all_queues_sentence([row for row, *_ in rows], away=state is None)
    sort = request.GET.get("sort", "")
    context = {
        "title": "Queues", "rows": in_order(rows, sort), "sentence": sentence, "away": state is None,
        "at": timezone.now(), "heads": heads(sort), "sort": sort if sort in ORDERS else "",
        "may_choose": request.user.has_perm("switchyard_operations.pause_queue"),
        "off": SWITCHED_OFF if state is None else "",
    }  # fmt: skip
    if request.GET.get("part") == "live":  # what the open page fetches
        return TemplateResponse(request, "switchyard_queues/queues_live.html", context)
    return TemplateResponse(request, "switchyard_queues/queues.html", context)


@require_safe
@never_cache
def queue(request: HttpRequest, name: str) -> TemplateResponse:
    """Show one queue; complete without JavaScript."""
    require(request, "switchyard_operations.view_operations")
    waiting = queries.waiting_actors(queue_of(name).name)
    context = {"waiting": waiting, "looked_through": queries.LOOKED_THROUGH}
    return _rendered(request, name, "switchyard_queues/queue.html", context)


@require_safe
@never_cache
def live(request: HttpRequest, name: str) -> TemplateResponse:
    """Render the part that changes."""
    return _rendered(request, name, "switchyard_queues/queue_live.html", {})


def queue_of(name: str) -> Queue:
    """Return a queue of the yard.

    Raises:
        Http404: the yard has none of that name.
    """
    for found in declared_yard().queues:
        if found.name == name:
            return found
    raise Http404(f"The topology has no queue {name}.")


def _rendered(request: HttpRequest, name: str, template: str, context: dict[str, Any]) -> TemplateResponse:
    require(request, "switchyard_operations.view_operations")
    seen = queries.view_of(queue_of(name))
    return TemplateResponse(request, template, {**context, "title": f"Queue {name}", "seen": seen, "queue": seen.queue})


# A row of the yard, its pause, and its counts of retries and of dead letters.
QueueRow = tuple[Row, Any, int | None, int | None]

COLUMNS: Final = tuple(
    SortColumn(name, text, (f"-{name}", name))
    for name, text in (
        ("waiting", "Waiting"),
        ("oldest", "Oldest"),
        ("later", "Later"),
        ("done", "Done"),
        ("retrying", "Retrying"),
        ("dead", "Dead"),
    )
)
ORDERS: Final = frozenset(order for column in COLUMNS for order in column.orders)
_FIGURES: Final[dict[str, Callable[[QueueRow], float | None]]] = {
    "waiting": lambda row: row[0].waiting,
    "oldest": lambda row: row[0].oldest_age_ms,
    "later": lambda row: row[0].held,
    "done": lambda row: row[0].done_a_minute,
    "retrying": lambda row: row[2],
    "dead": lambda row: row[3],
}


def heads(sort: str) -> dict[str, SortHead]:
    """Return the headings of the list."""
    return heads_of(COLUMNS, {}, sort)


def in_order(rows: Sequence[QueueRow], sort: str) -> list[QueueRow]:
    """Return queues in an order, those without a figure last; the others, and of no such order, as in the topology."""
    if sort not in ORDERS:
        return list(rows)
    figure = _FIGURES[sort.lstrip("-")]
    found = [(figure(row), row) for row in rows]
    known = [(value, row) for value, row in found if value is not None]
    known.sort(key=lambda pair: pair[0], reverse=sort.startswith("-"))
    return [*(row for _, row in known), *(row for value, row in found if value is None)]
