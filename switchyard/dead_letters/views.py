"""Pages of dead letters: the list with its groups, one letter, and the quarantine; ``act_views`` has the acts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.shapes import Unreadable
from switchyard.conf import declared_yard
from switchyard.console.room_view import gone, require
from switchyard.dead_letters import letter_filter, list_page, queries
from switchyard.dead_letters.act_views import LIST, TRIAGE, VIEW, act_on_chosen
from switchyard.dead_letters.models import OPEN_STATES, DeadLetter
from switchyard.dead_letters.presentation import marked, seen_at, why_given_up
from switchyard.dead_letters.queries import hex_dump, shown_bytes


@require_http_methods(["GET", "HEAD", "POST"])
def letters(request: HttpRequest) -> HttpResponseBase:
    """Show the groups; with a filter also the letters that match, with a group's fingerprint its newest letter."""
    require(request, VIEW)
    if request.method == "POST":
        return act_on_chosen(request)
    query = request.GET.dict()
    try:
        listed = list_page.LetterList(query) if query else None
    except ValueError as error:
        messages.warning(request, str(error))
        return HttpResponseRedirect(reverse(LIST))
    context = {"title": "Dead letters", "rights": _rights(request), "matching": _matching(query), "listed": listed}
    return TemplateResponse(request, "switchyard_dead_letters/list.html", context | list_page.context_of(request))


@require_safe
def letter(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Show one letter."""
    require(request, VIEW)
    row = DeadLetter.objects.filter(pk=pk).first()
    if row is None:
        return gone(request, "dead letter", pk, LIST)
    context = {
        "title": row.exception,
        "row": row,
        "open": row.state in OPEN_STATES,
        "restorable": row.state == DeadLetter.State.DISCARDED and bool(row.kept),
        "alike": queries.listing(fingerprint=row.fingerprint).count(),
        "waited_s": (row.died_at - row.enqueued_at).total_seconds(),
        "lines": marked(row.traceback),
        "why": why_given_up(row),
        "payload": json.dumps(row.payload, indent=2, ensure_ascii=False),
        "history": list(reversed(row.history)),
        "rights": _rights(request),
    }
    return TemplateResponse(request, "switchyard_dead_letters/detail.html", context)


@require_safe
def quarantined(request: HttpRequest) -> HttpResponseBase:
    """Show the messages that could not be decoded."""
    require(request, VIEW)
    away, shown = "", QuarantinePage((), "")
    try:
        shown = page(request.GET.get("after", ""))
    except BrokerError:
        away = "The broker does not answer. Quarantined messages are kept there; reload the page when it is back."
    context = {"title": "Quarantine", "page": shown, "away": away, "is_later": "after" in request.GET}
    return TemplateResponse(request, "switchyard_dead_letters/quarantine.html", context)


def _matching(query: dict[str, str]) -> dict[str, Any] | None:
    """Return the filter of the list with the number of its open letters, where there is one."""
    found = letter_filter.of_list(query)
    return {"count": letter_filter.matching(found).count(), "query": urlencode(found)} if found else None


def _rights(request: HttpRequest) -> dict[str, bool]:
    return {action: request.user.has_perm(f"switchyard_dead_letters.{action}_deadletter") for action in TRIAGE}


SHOWN: Final = 20
# 16 lines. The whole of what is kept would be 19 KB of HTML for each.
SHOWN_BYTES: Final = 256
LONGEST_ERROR: Final = 300


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """A quarantined message.

    Args:
        error: Why it is unreadable, cut.
        dump: Its first bytes.
        more_bytes: Bytes of it that are not in ``dump``.
    """

    item: Unreadable
    error: str
    seen_at: datetime
    dump: str
    more_bytes: int


@dataclass(frozen=True, slots=True)
class QuarantinePage:
    """Messages of the queues, in the yard's order, newest first in each.

    Args:
        after: Place at which the next page begins; "" at the end.
    """

    messages: tuple[ShownMessage, ...]
    after: str


def page(after: str = "") -> QuarantinePage:
    """Return a page; an unknown place is the beginning.

    Raises:
        BrokerError: the broker does not answer.
    """
    names = [queue.name for queue in declared_yard().queues]
    name, _, text = after.rpartition("~")
    is_place = name in names and text.isascii() and text.isdecimal() and len(text) < 10
    first, start = (names.index(name), int(text)) if is_place else (0, 0)
    found: list[Unreadable] = []
    places: list[str] = []
    for name in names[first:]:
        items = facilities().transport.unreadable(name, cursor=start, limit=SHOWN + 1 - len(found)).items
        found += items
        places += [f"{name}~{start + number}" for number in range(len(items))]
        if len(found) > SHOWN:
            break
        start = 0
    return QuarantinePage(tuple(map(_shown, found[:SHOWN])), "".join(places[SHOWN:]))


def _shown(item: Unreadable) -> ShownMessage:
    raw = shown_bytes(item)
    error = item.error if len(item.error) <= LONGEST_ERROR else f"{item.error[: LONGEST_ERROR - 1]}…"
    return ShownMessage(item, error, seen_at(item), hex_dump(raw[:SHOWN_BYTES]), max(item.size_bytes - SHOWN_BYTES, 0))
