"""Admin pages of the operator actions. Each checks the action's permission and changes nothing on GET."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from apps.platform.dead_letters import actions, queries
from apps.platform.dead_letters.bulk import MOST_AT_ONCE, apply_to_each
from apps.platform.dead_letters.confirmation import PAST, Confirmation, of_rows
from apps.platform.dead_letters.models import DeadLetter
from apps.platform.dead_letters.presentation import letters, seen_at
from broker.errors import BrokerError

ACTIONS = {"acknowledge": actions.acknowledge, "requeue": actions.requeue, "discard": actions.discard}
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
        row = DeadLetter.objects.filter(pk=pk).first()
        if row is None:
            raise Http404(f"There is no dead letter {pk}.")
        page = reverse("admin:switchyard_dead_letters_deadletter_change", args=[pk])
        if action == "discard" and not self._confirmed(request, action, 1):
            return self._ask(request, of_rows(action, [row], back=page))
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        self._apply(request, action, [row])
        return HttpResponseRedirect(page)

    def group_view(self, request: HttpRequest, fingerprint: str, action: str) -> HttpResponseBase:
        """Ask whether to apply an action to a group's open letters."""
        if refusal := self._refusal(request, action):
            return refusal
        rows = queries.listing(fingerprint=fingerprint).order_by("died_at", "id")
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        return self.confirm_rows(request, action, rows)

    def chosen_view(self, request: HttpRequest, action: str) -> HttpResponseBase:
        """Apply an action to the letters listed by the confirmation page, or ask again."""
        if refusal := self._refusal(request, action):
            return refusal
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        ids = [int(part) for part in request.POST.get("ids", "").split(",") if part.isdecimal() and len(part) < 19]
        rows = DeadLetter.objects.filter(pk__in=ids[:MOST_AT_ONCE]).order_by("died_at", "id")
        if not rows or not self._confirmed(request, action, len(rows)):
            return self.confirm_rows(request, action, rows)
        self._apply(request, action, rows)
        return HttpResponseRedirect(reverse(LIST))

    def confirm_rows(self, request: HttpRequest, action: str, rows: QuerySet[DeadLetter]) -> HttpResponseBase:
        """Ask whether to apply an action to the rows selected in the list."""
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
        away = ""
        shown: list[dict[str, Any]] = []
        try:
            for item in queries.unreadable():
                shown.append({"item": item, "dump": queries.hex_dump(item.raw), "seen_at": seen_at(item)})
        except BrokerError:
            away = "The broker does not answer. Quarantined messages are kept there; reload the page when it is back."
        context = {**self.admin_site.each_context(request), "title": "Quarantine", "items": shown, "away": away}
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

    def _apply(self, request: HttpRequest, action: str, rows: Iterable[DeadLetter]) -> None:
        user, reason = cast(User, request.user), request.POST.get("reason", "").strip()
        outcome = apply_to_each(ACTIONS[action], rows, by=user, reason=reason)
        if outcome.done:
            messages.success(request, f"{PAST[action]} {letters(len(outcome.done))}.")
        for sentence in outcome.skipped[:MOST_MESSAGES]:
            messages.warning(request, sentence)
        if len(outcome.skipped) > MOST_MESSAGES:
            messages.warning(request, f"{len(outcome.skipped) - MOST_MESSAGES} more were skipped.")
        if outcome.stopped:
            messages.error(request, f"{outcome.stopped} Letters not named here were not moved.")

    def _ask(self, request: HttpRequest, confirmation: Confirmation) -> HttpResponseBase:
        context = {**self.admin_site.each_context(request), "title": confirmation.title, "ask": confirmation}
        return TemplateResponse(request, "switchyard_dead_letters/confirm.html", context)

    def _refusal(self, request: HttpRequest, action: str) -> HttpResponseBase | None:
        if action not in ACTIONS:
            raise Http404(f"There is no action {action}.")
        if self.rights(request)[action] and self.has_view_permission(request):
            return None
        context = {**self.admin_site.each_context(request), "title": "Not allowed", "action": action}
        return TemplateResponse(request, "switchyard_dead_letters/refused.html", context, status=403)
