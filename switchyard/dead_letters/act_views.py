"""Pages of the operator actions. Each checks the action's permission and changes nothing on GET."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from switchyard.audit.services import Who
from switchyard.broker.errors import ArgumentsRefused, BrokerError, NotFound
from switchyard.bulk.services import AT_ONCE
from switchyard.console.formatting import between, counted
from switchyard.console.queue_rights import queue_rights
from switchyard.console.room_view import RoomResponse, not_answered, require
from switchyard.dead_letters import acts, editing, queries
from switchyard.dead_letters.acts import MOST_AT_ONCE
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.presentation import letters

PAST = {"acknowledge": "Acknowledged", "requeue": "Requeued", "discard": "Discarded", "restore": "Restored"}
CONSEQUENCES = {
    "acknowledge": ("Nothing moves:", "{they} {stay} where {they} {are}, marked as known."),
    "requeue": ("{They} {run} again,", "from the first attempt. What was done before the failure may be done twice."),
    "discard": ("{They} will never run.", "The sender gets no result and no notice."),
    "restore": ("{They} {come} back as new dead letters.", "Nothing runs before {they} {are} requeued."),
}
ONE = {"they": "it", "They": "It", "them": "it", "stay": "stays", "are": "is", "run": "runs", "come": "comes"}
MANY = {"they": "they", "They": "They", "them": "them", "stay": "stay", "are": "are", "run": "run", "come": "come"}
UNDO = {
    "acknowledge": "Not needed: it is only a mark.",
    "requeue": "Cancel the job while it waits. What fails again comes back as a dead letter.",
    "discard": "Restore, for 90 days: Dead letters, Discarded. Then the messages are erased.",
    "restore": "Discard them again.",
}
INSTEAD = {
    "discard": "Acknowledge: it moves nothing, and you decide later. Or requeue one, and see whether it fails again.",
    "requeue": "Edit and requeue a single letter, where its arguments are wrong.",
}


def of_rows(action: str, rows: Sequence[DeadLetter], *, to: str = "", back: str) -> dict[str, Any]:
    """Return the question whether to apply ``action`` to these rows, for its page.

    Args:
        to: URL the answer is posted to; "" is the page itself.
        back: URL of "Keep them".
    """
    count = len(rows)
    headline, tail = (text.format(**(ONE if count == 1 else MANY)) for text in CONSEQUENCES[action])
    causes = sorted({f"{row.exception} in {row.actor}" for row in rows})
    shown = ", ".join(causes[:3]) + (f" and {len(causes) - 3} more" if len(causes) > 3 else "")
    queues = ", ".join(sorted({row.queue for row in rows}))
    first, last = min(row.died_at for row in rows), max(row.died_at for row in rows)
    facts = {
        "Failures": shown,
        "Letters": f"{count:,}, died {between(first, last)}. Later ones are not touched.",
        "Queues": queues,
        "Owners": _owners(rows),
        "Undo": UNDO[action],
        "Instead": INSTEAD.get(action, ""),
    }
    return {
        "title": f"{action.capitalize()} {letters(count)}?",
        "count": count,
        "headline": headline,
        "tail": tail,
        "facts": {name: fact for name, fact in facts.items() if fact},
        "button": f"{action.capitalize()} {counted(count, 'letter')}",
        "to": to,
        "back": back,
        "ids": ",".join(str(row.pk) for row in rows),
        "destructive": action == "discard",
        "needs_broker": action != "acknowledge",  # a mark is only in the database
        "typed": count > TYPED_ABOVE,
    }


def _owners(rows: Sequence[DeadLetter]) -> str:
    """Return whose jobs are hit, the most first; "" where no letter names an owner."""
    options = [row.payload.get("options") if isinstance(row.payload, dict) else None for row in rows]
    found = Counter(str(each["owner"])[:80] for each in options if isinstance(each, dict) and each.get("owner"))
    named = [f"{owner} ({count:,})" for owner, count in found.most_common(3)]
    more = f" and {len(found) - 3:,} more" if len(found) > 3 else ""
    return f"{', '.join(named)}{more}"


TRIAGE, BULK = ("acknowledge", "requeue", "discard"), ("requeue", "discard")
# Of letters that are not open; needs the right to discard.
RESTORE = "restore"
ARGUMENTS = "switchyard_jobs.view_arguments"
LIST, VIEW = "switchyard-letters", "switchyard_dead_letters.view_deadletter"
MOST_MESSAGES = 5
TYPED_ABOVE = 100


def one(request: HttpRequest, pk: int, action: str) -> HttpResponseBase:
    """Apply an action to one letter; ask before discarding."""
    _check(request, action, RESTORE)
    row, page = _row(pk), _page(pk)
    if action == "discard" and not _confirmed(request, action, 1):
        return _ask(request, of_rows(action, [row], back=page))
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    return _apply(request, action, [row], page)


@require_POST
def note(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Append a note to a letter's history."""
    _check(request, "acknowledge")
    result = acts.note(_row(pk), who=Who.of_request(request), text=request.POST.get("text", ""))
    (messages.success if result.done else messages.warning)(request, result.message)
    return HttpResponseRedirect(_page(pk))


def edit(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Show a letter's arguments in a form, and requeue it with the edited values."""
    _check(request, "requeue")
    row = _row(pk)
    require(request, ARGUMENTS, queue=row.queue)
    text, wrong, status = request.POST.get("arguments", ""), "", 400
    try:
        if request.method == "POST":
            edited, reason = editing.parse(row, text), request.POST.get("reason", "").strip()
            result = acts.edit_and_requeue(row, edited, who=Who.of_request(request), reason=reason)
            (messages.success if result.done else messages.warning)(request, result.message)
            return HttpResponseRedirect(_page(pk))
        text = editing.editable(row)
    except ArgumentsRefused as error:
        wrong = f"Nothing was done. {error}"
    except NotFound:
        messages.warning(request, "Its arguments cannot be edited: the broker's dead list no longer holds it.")
        return HttpResponseRedirect(_page(pk))
    except BrokerError:
        wrong, status = "The broker does not answer, and holds the arguments. Reload the page when it is back.", 503
    context = {
        "title": "Edit and requeue", "row": row, "text": text,
        "wrong": wrong, "back": _page(pk), "reason": request.POST.get("reason", ""),
    }  # fmt: skip
    return RoomResponse(request, "switchyard_dead_letters/edit.html", context, status=status if wrong else 200)


def group(request: HttpRequest, fingerprint: str, action: str) -> HttpResponseBase:
    """Ask whether to apply an action to a group's open letters, or to restore its discarded letters."""
    _check(request, action, RESTORE)
    if "\0" in fingerprint:
        raise Http404("A fingerprint has no NUL character.")
    states = (DeadLetter.State.DISCARDED.value,) if action == RESTORE else ()
    rows = queries.listing(fingerprint=fingerprint, states=states).order_by("died_at", "id")
    of = {"fingerprint": fingerprint}
    if (own := own_queues(request, action)) is not None:
        rows, of = rows.filter(queue__in=own), of | {"queue": ",".join(sorted(own))}
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if action in BULK and rows.count() > AT_ONCE:
        begin = reverse("switchyard-bulk-begin", args=[f"letter.{action}"])
        return HttpResponseRedirect(f"{begin}?{urlencode(of)}")
    return _confirm_rows(request, action, rows)


def chosen(request: HttpRequest, action: str) -> HttpResponseBase:
    """Apply an action to the letters listed by the confirmation page, or ask again."""
    _check(request, action, RESTORE)
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    rows = DeadLetter.objects.filter(pk__in=_numbers(request.POST.get("ids", "").split(","))).order_by("died_at", "id")
    if not rows or not _confirmed(request, action, len(rows)):
        return _confirm_rows(request, action, rows)
    return _apply(request, action, rows, reverse(LIST))


def act_on_chosen(request: HttpRequest) -> HttpResponseBase:
    """Ask whether to apply an action to the letters that are ticked in the list."""
    action = request.POST.get("action", "").removesuffix("_chosen")
    _check(request, action)
    rows = DeadLetter.objects.filter(pk__in=_numbers(request.POST.getlist("_selected_action")))
    if not rows:
        messages.warning(request, "Nothing was done: no letter was chosen.")
        return HttpResponseRedirect(request.get_full_path())
    return _confirm_rows(request, action, rows.order_by("died_at", "id"))


def _confirm_rows(request: HttpRequest, action: str, rows: QuerySet[DeadLetter]) -> HttpResponseBase:
    """Ask whether to apply an action to some rows."""
    chosen = list(rows[:MOST_AT_ONCE])
    if not chosen:
        messages.info(request, "Nothing to do: these letters have been triaged already.")
        return HttpResponseRedirect(reverse(LIST))
    to = reverse("switchyard-letters-chosen", args=[action])
    return _ask(request, of_rows(action, chosen, to=to, back=reverse(LIST)))


def _confirmed(request: HttpRequest, action: str, count: int) -> bool:
    if request.method != "POST" or "confirmed" not in request.POST:
        return False
    if count > TYPED_ABOVE and request.POST.get("typed", "").strip() != str(count):
        messages.error(request, f"Nothing was done: type {count} into the field to go on.")
        return False
    if action == "discard" and not request.POST.get("reason", "").strip():
        messages.error(request, "Nothing was done: enter a reason.")
        return False
    return True


def _apply(request: HttpRequest, action: Any, rows: Iterable[DeadLetter], back: str) -> HttpResponseBase:
    """Do the act, and report its outcome on the page of the form, or apart when the broker did not answer."""
    reason = request.POST.get("reason", "").strip()
    outcome = acts.apply(action, list(rows), who=Who.of_request(request), reason=reason)
    if outcome.done:
        messages.success(request, f"{PAST[action]} {letters(len(outcome.done))}.")
    for sentence in outcome.skipped[:MOST_MESSAGES]:
        messages.warning(request, sentence)
    if len(outcome.skipped) > MOST_MESSAGES:
        messages.warning(request, f"{len(outcome.skipped) - MOST_MESSAGES} more were skipped.")
    if outcome.stopped:
        return not_answered(request, f"{outcome.stopped} Letters not named here were not moved.", back=back)
    return HttpResponseRedirect(back)


def _ask(request: HttpRequest, question: dict[str, Any]) -> HttpResponseBase:
    return RoomResponse(request, "switchyard_dead_letters/confirm.html", question)


def own_queues(request: HttpRequest, action: str) -> frozenset[str] | None:
    """Return the queues to whose letters alone a user may do an act; ``None`` for those of all queues."""
    return queue_rights(request.user).get(_right(action))


def _check(request: HttpRequest, action: str, *others: str) -> None:
    if action not in (*TRIAGE, *others):
        raise Http404(f"There is no action {action}.")
    require(request, _right(action), VIEW)


def _right(action: str) -> str:
    return f"switchyard_dead_letters.{'discard' if action == RESTORE else action}_deadletter"


def _numbers(texts: Iterable[str]) -> list[int]:
    return [int(text) for text in texts if text.isdecimal() and len(text) < 19][:MOST_AT_ONCE]


def _row(pk: int) -> DeadLetter:
    row = DeadLetter.objects.filter(pk=pk).first()
    if row is None:
        raise Http404(f"There is no dead letter {pk}.")
    return row


def _page(pk: int) -> str:
    return reverse("switchyard-letter", args=[pk])
