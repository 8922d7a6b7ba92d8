"""Admin pages of the operator actions. Each checks the action's permission and changes nothing on GET."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from switchyard.audit.services import Who
from switchyard.broker.errors import BrokerError
from switchyard.bulk.services import AT_ONCE
from switchyard.console.broker_away import not_answered
from switchyard.dead_letters import acts, editing, letter_filter, queries
from switchyard.dead_letters.acts import ACTIONS
from switchyard.dead_letters.bulk import MOST_AT_ONCE, BulkResult
from switchyard.dead_letters.confirmation import PAST, Confirmation, of_rows
from switchyard.dead_letters.errors import ArgumentsRefused, UnknownDeadLetter
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.pages import quarantine
from switchyard.dead_letters.presentation import letters

BULK = ("requeue", "discard")
# Of letters that are not open; needs the right to discard.
RESTORE = "restore"
ARGUMENTS = "switchyard_jobs.view_arguments"
LIST = "admin:switchyard_dead_letters_deadletter_changelist"
MOST_MESSAGES = 5


class ActionViews(ModelAdmin):
    """Action pages of the dead-letter admin."""

    def rights(self, request: HttpRequest) -> dict[str, bool]:
        """Return for each action whether the user may do it."""
        return {action: request.user.has_perm(f"switchyard_dead_letters.{action}_deadletter") for action in ACTIONS}

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may acknowledge."""
        return self.rights(request)["acknowledge"]

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may requeue."""
        return self.rights(request)["requeue"]

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may discard."""
        return self.rights(request)["discard"]

    def one_view(self, request: HttpRequest, pk: int, action: str) -> HttpResponseBase:
        """Apply an action to one letter; ask before discarding."""
        if refusal := self._refusal(request, action):
            return refusal
        row, page = _row(pk), _page(pk)
        if action == "discard" and not self._confirmed(request, action, 1):
            return self._ask(request, of_rows(action, [row], back=page))
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return self._apply(request, action, [row], page)

    def restore_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Restore a discarded letter."""
        if refusal := self._refusal(request, "discard"):
            return refusal
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        row = _row(pk)
        reason = request.POST.get("reason", "").strip()
        outcome = acts.restore([row], who=Who.of_request(request), by=cast(User, request.user), reason=reason)
        return self._told(request, "Restored", outcome, _page(pk))

    def note_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Append a note to a letter's history."""
        if refusal := self._refusal(request, "acknowledge"):
            return refusal
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        who, text = Who.of_request(request), request.POST.get("text", "")
        result = acts.note(_row(pk), who=who, by=cast(User, request.user), text=text)
        (messages.success if result.done else messages.warning)(request, result.message)
        return HttpResponseRedirect(_page(pk))

    def edit_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Show a letter's arguments to edit, and requeue it with the edited ones."""
        if refusal := self._refusal(request, "requeue"):
            return refusal
        if not request.user.has_perm(ARGUMENTS):
            raise PermissionDenied(f"The missing right is {ARGUMENTS}.")
        row = _row(pk)
        text, wrong, status = request.POST.get("arguments", ""), "", 400
        try:
            if request.method == "POST":
                user, reason = cast(User, request.user), request.POST.get("reason", "").strip()
                edited = editing.parse(row, text)
                result = acts.edit_and_requeue(row, edited, who=Who.of_request(request), by=user, reason=reason)
                (messages.success if result.done else messages.warning)(request, result.message)
                return HttpResponseRedirect(_page(pk))
            text = editing.editable(row)
        except ArgumentsRefused as error:
            wrong = f"Nothing was done. {error}"
        except UnknownDeadLetter:
            messages.warning(request, "Its arguments cannot be edited: the broker's dead list no longer holds it.")
            return HttpResponseRedirect(_page(pk))
        except BrokerError:
            wrong, status = "The broker does not answer, and holds the arguments. Reload the page when it is back.", 503
        context = {
            **self.admin_site.each_context(request), "title": "Edit and requeue", "row": row, "text": text,
            "wrong": wrong, "back": _page(pk), "reason": request.POST.get("reason", ""),
        }  # fmt: skip
        return TemplateResponse(request, "switchyard_dead_letters/edit.html", context, status=status if wrong else 200)

    def group_view(self, request: HttpRequest, fingerprint: str, action: str) -> HttpResponseBase:
        """Ask whether to apply an action to a group's open letters, or to restore its discarded ones."""
        if refusal := self._refusal(request, action, RESTORE):
            return refusal
        if "\0" in fingerprint:
            raise Http404("A fingerprint has no NUL character.")
        states = (DeadLetter.State.DISCARDED.value,) if action == RESTORE else ()
        rows = queries.listing(fingerprint=fingerprint, states=states).order_by("died_at", "id")
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if action in BULK and rows.count() > AT_ONCE:
            return _begin_bulk(action, {"fingerprint": fingerprint})
        return self.confirm_rows(request, action, rows)

    def chosen_view(self, request: HttpRequest, action: str) -> HttpResponseBase:
        """Apply an action to the letters listed by the confirmation page, or ask again."""
        if refusal := self._refusal(request, action, RESTORE):
            return refusal
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        ids = [int(part) for part in request.POST.get("ids", "").split(",") if part.isdecimal() and len(part) < 19]
        rows = DeadLetter.objects.filter(pk__in=ids[:MOST_AT_ONCE]).order_by("died_at", "id")
        if not rows or not self._confirmed(request, action, len(rows)):
            return self.confirm_rows(request, action, rows)
        return self._apply(request, action, rows, reverse(LIST))

    def confirm_rows(self, request: HttpRequest, action: str, rows: QuerySet[DeadLetter]) -> HttpResponseBase:
        """Ask whether to apply an action to the rows selected in the list; all that match its filter are a bulk act."""
        if request.POST.get("select_across") == "1" and action in BULK:
            filter = letter_filter.of_list(request.GET.dict())
            if filter is not None and rows.count() > AT_ONCE:
                return _begin_bulk(action, filter)
        chosen = list(rows[:MOST_AT_ONCE])
        if not chosen:
            messages.info(request, "Nothing to do: these letters have been triaged already.")
            return HttpResponseRedirect(reverse(LIST))
        to = reverse("admin:switchyard_dead_letters_chosen", args=[action])
        return self._ask(request, of_rows(action, chosen, to=to, back=reverse(LIST)))

    def quarantine_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show the messages that could not be decoded."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        away, shown = "", quarantine.QuarantinePage((), "")
        try:
            shown = quarantine.page(request.GET.get("after", ""))
        except BrokerError:
            away = "The broker does not answer. Quarantined messages are kept there; reload the page when it is back."
        context = {
            **self.admin_site.each_context(request), "title": "Quarantine", "page": shown, "away": away,
            "is_later": "after" in request.GET,
        }  # fmt: skip
        return TemplateResponse(request, "switchyard_dead_letters/quarantine.html", context)

    def _confirmed(self, request: HttpRequest, action: str, count: int) -> bool:
        if request.method != "POST" or "confirmed" not in request.POST:
            return False
        if count > Confirmation.TYPED_ABOVE and request.POST.get("typed", "").strip() != str(count):
            messages.error(request, f"Nothing was done: type {count} into the field to go on.")
            return False
        if action == "discard" and not request.POST.get("reason", "").strip():
            messages.error(request, "Nothing was done: enter a reason.")
            return False
        return True

    def _apply(self, request: HttpRequest, action: str, rows: Iterable[DeadLetter], back: str) -> HttpResponseBase:
        user, reason = cast(User, request.user), request.POST.get("reason", "").strip()
        who, chosen = Who.of_request(request), list(rows)
        if action == RESTORE:
            outcome = acts.restore(chosen, who=who, by=user, reason=reason)
        else:
            outcome = acts.apply(action, chosen, who=who, by=user, reason=reason)
        return self._told(request, PAST[action], outcome, back)

    @staticmethod
    def _told(request: HttpRequest, past: str, outcome: BulkResult, back: str) -> HttpResponseBase:
        """Say what became of letters on the page that asked; where the broker did not answer, on one of its own."""
        if outcome.done:
            messages.success(request, f"{past} {letters(len(outcome.done))}.")
        for sentence in outcome.skipped[:MOST_MESSAGES]:
            messages.warning(request, sentence)
        if len(outcome.skipped) > MOST_MESSAGES:
            messages.warning(request, f"{len(outcome.skipped) - MOST_MESSAGES} more were skipped.")
        if outcome.stopped:
            return not_answered(request, f"{outcome.stopped} Letters not named here were not moved.", back=back)
        return HttpResponseRedirect(back)

    def _ask(self, request: HttpRequest, confirmation: Confirmation) -> HttpResponseBase:
        context = {**self.admin_site.each_context(request), "title": confirmation.title, "ask": confirmation}
        return TemplateResponse(request, "switchyard_dead_letters/confirm.html", context)

    def _refusal(self, request: HttpRequest, action: str, *others: str) -> HttpResponseBase | None:
        if action not in (*ACTIONS, *others):
            raise Http404(f"There is no action {action}.")
        if self.rights(request)["discard" if action == RESTORE else action] and self.has_view_permission(request):
            return None
        context = {**self.admin_site.each_context(request), "title": "Not allowed", "action": action}
        return TemplateResponse(request, "switchyard_dead_letters/refused.html", context, status=403)


def _begin_bulk(action: str, filter: dict[str, str]) -> HttpResponseBase:
    return HttpResponseRedirect(f"{reverse('switchyard-bulk-begin', args=[f'letter.{action}'])}?{urlencode(filter)}")


def _row(pk: int) -> DeadLetter:
    row = DeadLetter.objects.filter(pk=pk).first()
    if row is None:
        raise Http404(f"There is no dead letter {pk}.")
    return row


def _page(pk: int) -> str:
    return reverse("admin:switchyard_dead_letters_deadletter_change", args=[pk])
