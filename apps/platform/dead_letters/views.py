"""The admin's pages that act on dead letters. Each checks its own right, and changes nothing on GET."""

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

from apps.platform.dead_letters import queries, services
from apps.platform.dead_letters.confirmation import PAST, Confirmation, of_rows
from apps.platform.dead_letters.errors import BROKER_AWAY
from apps.platform.dead_letters.models import DeadLetter
from apps.platform.dead_letters.presentation import letters, seen_at

ACTS = {"acknowledge": services.acknowledge, "requeue": services.requeue, "discard": services.discard}
LIST = "admin:dead_letters_deadletter_changelist"
MOST_MESSAGES = 5


class ActViews(ModelAdmin):
    """The pages, for the model's admin."""

    def rights(self, request: HttpRequest) -> dict[str, bool]:
        """Return which acts the user may do."""
        return {act: request.user.has_perm(f"dead_letters.{act}_deadletter") for act in ACTS}

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        """Whether the user may acknowledge."""
        return self.rights(request)["acknowledge"]

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Whether the user may requeue."""
        return self.rights(request)["requeue"]

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Whether the user may discard."""
        return self.rights(request)["discard"]

    def one_view(self, request: HttpRequest, pk: int, act: str) -> HttpResponseBase:
        """Act on one letter; discarding asks first."""
        if refusal := self._refusal(request, act):
            return refusal
        row = DeadLetter.objects.filter(pk=pk).first()
        if row is None:
            raise Http404(f"There is no dead letter {pk}.")
        page = reverse("admin:dead_letters_deadletter_change", args=[pk])
        if act == "discard" and not self._confirmed(request, act, 1):
            return self._ask(request, of_rows(act, [row], back=page))
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        self._act(request, act, [row])
        return HttpResponseRedirect(page)

    def group_view(self, request: HttpRequest, fingerprint: str, act: str) -> HttpResponseBase:
        """Ask whether to act on a group's open letters."""
        if refusal := self._refusal(request, act):
            return refusal
        rows = queries.listing(fingerprint=fingerprint).order_by("died_at", "id")
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        return self.confirm_rows(request, act, rows)

    def chosen_view(self, request: HttpRequest, act: str) -> HttpResponseBase:
        """Act on the letters that the confirmation page named, or ask again."""
        if refusal := self._refusal(request, act):
            return refusal
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        ids = [int(part) for part in request.POST.get("ids", "").split(",") if part.isdecimal() and len(part) < 19]
        rows = DeadLetter.objects.filter(pk__in=ids[: services.MOST_AT_ONCE]).order_by("died_at", "id")
        if not rows or not self._confirmed(request, act, len(rows)):
            return self.confirm_rows(request, act, rows)
        self._act(request, act, rows)
        return HttpResponseRedirect(reverse(LIST))

    def confirm_rows(self, request: HttpRequest, act: str, rows: QuerySet[DeadLetter]) -> HttpResponseBase:
        """Ask whether to act on what a list's user selected."""
        chosen = list(rows[: services.MOST_AT_ONCE])
        if not chosen:
            messages.info(request, "Nothing to do: somebody has triaged these letters already.")
            return HttpResponseRedirect(reverse(LIST))
        to = reverse("admin:dead_letters_chosen", args=[act])
        return self._ask(request, of_rows(act, chosen, to=to, back=reverse(LIST)))

    def quarantine_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show messages that nobody can read."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        away = ""
        shown: list[dict[str, Any]] = []
        try:
            for item in queries.unreadable():
                shown.append({"item": item, "dump": queries.hex_dump(item.raw), "seen_at": seen_at(item)})
        except BROKER_AWAY:
            away = "The broker does not answer. What is in quarantine is safe there; look again when it is back."
        context = {**self.admin_site.each_context(request), "title": "Quarantine", "items": shown, "away": away}
        return TemplateResponse(request, "dead_letters/quarantine.html", context)

    def _confirmed(self, request: HttpRequest, act: str, count: int) -> bool:
        if request.method != "POST" or "confirmed" not in request.POST:
            return False
        if count > Confirmation.TYPED_ABOVE and request.POST.get("typed", "").strip() != str(count):
            messages.error(request, f"Nothing was done: type {count} into the field to go on.")
            return False
        if act == "discard" and not request.POST.get("reason", "").strip():
            messages.error(request, "Nothing was done: say why.")
            return False
        return True

    def _act(self, request: HttpRequest, act: str, rows: Iterable[DeadLetter]) -> None:
        user, reason = cast(User, request.user), request.POST.get("reason", "").strip()
        outcome = services.each(ACTS[act], rows, by=user, reason=reason)
        if outcome.done:
            messages.success(request, f"{PAST[act]} {letters(len(outcome.done))}.")
        for words in outcome.skipped[:MOST_MESSAGES]:
            messages.warning(request, words)
        if len(outcome.skipped) > MOST_MESSAGES:
            messages.warning(request, f"{len(outcome.skipped) - MOST_MESSAGES} more were left as they are.")
        if outcome.stopped:
            messages.error(request, f"{outcome.stopped} Letters not named here are where they were.")

    def _ask(self, request: HttpRequest, confirmation: Confirmation) -> HttpResponseBase:
        context = {**self.admin_site.each_context(request), "title": confirmation.title, "ask": confirmation}
        return TemplateResponse(request, "dead_letters/confirm.html", context)

    def _refusal(self, request: HttpRequest, act: str) -> HttpResponseBase | None:
        if act not in ACTS:
            raise Http404(f"There is no act {act}.")
        if self.rights(request)[act] and self.has_view_permission(request):
            return None
        context = {**self.admin_site.each_context(request), "title": "Not allowed", "act": act}
        return TemplateResponse(request, "dead_letters/refused.html", context, status=403)
