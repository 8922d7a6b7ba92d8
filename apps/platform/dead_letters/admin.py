"""Dead letters in the admin: the list with its groups, and one letter. ``views`` holds the action pages."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.text import Truncator

from apps.platform.console.admin_base import ModelAdmin, display
from apps.platform.console.read_only import ReadOnly
from apps.platform.dead_letters import letter_filter, queries
from apps.platform.dead_letters.filters import ActorFilter, QueueFilter, ReasonFilter, StateFilter
from apps.platform.dead_letters.models import OPEN_STATES, DeadLetter
from apps.platform.dead_letters.presentation import short_paths
from apps.platform.dead_letters.queries import LetterGroup
from apps.platform.dead_letters.views import ActionViews

STATE_COLOURS = {
    "new": "danger",
    "acknowledged": "warning",
    "replayed": "success",
    "discarded": "info",
    "missing": "danger",
}


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnly, ActionViews, ModelAdmin):
    """Read-only rows; operators requeue, discard or acknowledge them."""

    list_display = ("failure", "actor", "queue", "reason", "attempts", "died", "shown_state")
    list_display_links = ("failure",)
    list_filter = (StateFilter, QueueFilter, ReasonFilter, ActorFilter, "died_at")
    linked_fields = ("fingerprint",)
    list_fullwidth = True
    list_before_template = "switchyard_dead_letters/groups.html"
    list_per_page = 50
    show_full_result_count = False
    search_fields = ("message_id", "exception", "error", "actor", "fingerprint")
    actions = ("acknowledge_chosen", "requeue_chosen", "discard_chosen")

    @display(description="Failure", ordering="exception")
    def failure(self, row: DeadLetter) -> str:
        """Return the exception and the first line of its text."""
        error = row.error.strip().split("\n", 1)[0]
        return Truncator(f"{row.exception}: {error}" if error else row.exception).chars(90)

    @display(description="Died (UTC)", ordering="died_at")
    def died(self, row: DeadLetter) -> str:
        """Return the time of death."""
        return f"{row.died_at:%Y-%m-%d %H:%M:%S}"

    @display(description="State", label=STATE_COLOURS, ordering="state")
    def shown_state(self, row: DeadLetter) -> tuple[str, str]:
        """Return the state as a coloured label."""
        return row.state, row.get_state_display()

    @admin.action(description="Acknowledge", permissions=["acknowledge"])
    def acknowledge_chosen(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponseBase:
        """Ask for confirmation, then acknowledge the selected letters."""
        return self.confirm_rows(request, "acknowledge", queryset)

    @admin.action(description="Requeue…", permissions=["requeue"])
    def requeue_chosen(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponseBase:
        """Ask for confirmation, then requeue the selected letters."""
        return self.confirm_rows(request, "requeue", queryset)

    @admin.action(description="Discard…", permissions=["discard"])
    def discard_chosen(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponseBase:
        """Ask for confirmation, then discard the selected letters."""
        return self.confirm_rows(request, "discard", queryset)

    def get_urls(self) -> list[URLPattern]:
        """Add the action pages and the quarantine."""
        guard = self.admin_site.admin_view
        own = [
            path("quarantine/", guard(self.quarantine_view), name="switchyard_dead_letters_quarantine"),
            path("chosen/<str:action>/", guard(self.chosen_view), name="switchyard_dead_letters_chosen"),
            path("group/<str:fingerprint>/<str:action>/", guard(self.group_view), name="switchyard_dead_letters_group"),
            path("<int:pk>/restore/", guard(self.restore_view), name="switchyard_dead_letters_restore"),
            path("<int:pk>/note/", guard(self.note_view), name="switchyard_dead_letters_note"),
            path("<int:pk>/edit/", guard(self.edit_view), name="switchyard_dead_letters_edit"),
            path("<int:pk>/<str:action>/do/", guard(self.one_view), name="switchyard_dead_letters_one"),
        ]
        return own + super().get_urls()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list below the groups of open letters."""
        context = {
            "title": "Dead letters",
            "groups": queries.groups(),
            "group_count": queries.group_count(),
            "letter_count": queries.open_count(),
            "rights": self.rights(request),
            "matching": self._matching(request),
            "discarded": self._discarded(request),
        }
        return super().changelist_view(request, context | (extra_context or {}))

    @staticmethod
    def _discarded(request: HttpRequest) -> list[LetterGroup] | None:
        """Return the groups of discarded letters where the list shows them."""
        state = DeadLetter.State.DISCARDED.value
        return queries.groups(states=(state,)) if request.GET.get("state") == state else None

    @staticmethod
    def _matching(request: HttpRequest) -> dict[str, Any] | None:
        """Return the filter of the list with the number of its open letters, where there is one."""
        found = letter_filter.of_list(request.GET.dict())
        if not found:
            return None
        return {"count": letter_filter.matching(found).count(), "query": urlencode(found)}

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show one letter."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": row.exception,
            "subtitle": None,
            "opts": self.opts,
            "row": row,
            "open": row.state in OPEN_STATES,
            "restorable": row.state == DeadLetter.State.DISCARDED and bool(row.kept),
            "alike": queries.listing(fingerprint=row.fingerprint).count(),
            "waited_s": (row.died_at - row.enqueued_at).total_seconds(),
            "traceback": short_paths(row.traceback),
            "payload": json.dumps(row.payload, indent=2, ensure_ascii=False),
            "history": list(reversed(row.history)),
            "rights": self.rights(request),
        }
        return TemplateResponse(request, "switchyard_dead_letters/detail.html", context | (extra_context or {}))
