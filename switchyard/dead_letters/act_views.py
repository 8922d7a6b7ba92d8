"""Acts on one letter from its page; ``bulk_moves`` has those on several. Nothing is changed on GET."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from switchyard.audit.services import Who
from switchyard.console.room_view import RoomResponse, not_answered, require
from switchyard.dead_letters import acts
from switchyard.dead_letters.queries import letter_of_key

PAST = {"acknowledge": "Acknowledged", "requeue": "Requeued", "discard": "Discarded", "restore": "Restored"}
TRIAGE = ("acknowledge", "requeue", "discard")
LIST, VIEW = "switchyard-letters", "switchyard_dead_letters.view_deadletter"


def one(request: HttpRequest, pk: int, action: Any) -> HttpResponseBase:
    """Apply an action to one letter; ask before discarding."""
    _check(request, action)
    row, page, reason = letter_of_key(pk), _page(pk), request.POST.get("reason", "").strip()
    if action == "discard" and not (request.method == "POST" and reason):
        wrong = "Nothing was done: enter a reason." if request.method == "POST" else ""
        context = {"title": "Discard 1 dead letter?", "row": row, "back": page, "refused": wrong}
        return RoomResponse(request, "switchyard_dead_letters/discard.html", context)
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    outcome = acts.apply(action, [row], who=Who.of_request(request), reason=reason)
    if outcome.stopped:
        fact = f"{outcome.stopped} Its page shows within a minute whether it was moved."
        return not_answered(request, fact, back=page)
    for sentence in outcome.skipped:
        messages.warning(request, sentence)
    if outcome.done:
        messages.success(request, f"{PAST[action]} 1 dead letter.")
    return HttpResponseRedirect(page)


@require_POST
def note(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Append a note to a letter's history."""
    _check(request, "acknowledge")
    result = acts.note(letter_of_key(pk), who=Who.of_request(request), text=request.POST.get("text", ""))
    (messages.success if result.done else messages.warning)(request, result.message)
    return HttpResponseRedirect(_page(pk))


def _check(request: HttpRequest, action: str) -> None:
    if action not in PAST:
        raise Http404(f"There is no action {action}.")
    require(request, acts.right_to(action), VIEW)


def _page(pk: int) -> str:
    return reverse("switchyard-letter", args=[pk])
