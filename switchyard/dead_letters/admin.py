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

from switchyard.console.admin_base import ModelAdmin
from switchyard.console.read_only import ReadOnly
from switchyard.dead_letters import letter_filter, queries
from switchyard.dead_letters.filters import ActorFilter, QueueFilter, ReasonFilter, StateFilter
from switchyard.dead_letters.models import OPEN_STATES, DeadLetter
from switchyard.dead_letters.pages import listing
from switchyard.dead_letters.pages.letter_list import LetterList
from switchyard.dead_letters.pages.tracebacks import marked
from switchyard.dead_letters.presentation import why_given_up
from switchyard.dead_letters.views import ActionViews

LIST_PAGE = "switchyard_dead_letters/list.html"


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnly, ActionViews, ModelAdmin):
    """Read-only rows; operators requeue, discard or acknowledge them."""

    list_filter = (StateFilter, QueueFilter, ReasonFilter, ActorFilter, "died_at")
    linked_fields = ("fingerprint",)
    change_list_template = LIST_PAGE  # type: ignore[assignment]
    list_class = LetterList
    list_per_page = 50
    show_full_result_count = False
    search_fields = ("message_id", "exception", "error", "actor", "fingerprint")
    actions = ("acknowledge_chosen", "requeue_chosen", "discard_chosen")

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
        """Show the groups; with a filter also the letters that match, with a group's fingerprint its newest letter."""
        if not self.has_view_permission(request):
            raise PermissionDenied("The missing right is switchyard_dead_letters.view_deadletter.")
        context = {"title": "Dead letters", "rights": self.rights(request), "matching": self._matching(request)}
        context |= listing.context_of(request) | (extra_context or {})
        if request.method in ("GET", "HEAD") and not listing.asks(request):
            return TemplateResponse(request, LIST_PAGE, {**self.admin_site.each_context(request), **context})
        return super().changelist_view(request, context)

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
            raise PermissionDenied("The missing right is switchyard_dead_letters.view_deadletter.")
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
            "lines": marked(row.traceback),
            "why": why_given_up(row),
            "payload": json.dumps(row.payload, indent=2, ensure_ascii=False),
            "history": list(reversed(row.history)),
            "rights": self.rights(request),
        }
        return TemplateResponse(request, "switchyard_dead_letters/detail.html", context | (extra_context or {}))
