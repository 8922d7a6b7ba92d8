"""Alerts in the admin: the list with the silences in force, and one alert. ``views`` holds the action pages."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from switchyard.alerts import list_page, queries
from switchyard.alerts.bulk_acknowledge import link_of_list, of_list
from switchyard.alerts.models import Alert
from switchyard.alerts.resolution import UNRESOLVED
from switchyard.alerts.silences import in_force
from switchyard.alerts.views import AlertViews
from switchyard.bulk.services import AT_ONCE
from switchyard.console import links
from switchyard.console.admin_base import ModelAdmin
from switchyard.console.read_only import ReadOnly
from switchyard.console.runbook import BY_KIND

LIST_PAGE = "switchyard_alerts/list.html"


@admin.register(Alert)
class AlertAdmin(ReadOnly, AlertViews, ModelAdmin):
    """Read-only rows; people acknowledge, resolve or silence them."""

    list_filter = ("state", "severity", "kind", "queue", "last_at")
    linked_fields = ("fingerprint",)
    change_list_template = LIST_PAGE  # type: ignore[assignment]
    search_fields = ("title", "fingerprint", "actor", "sample")
    list_per_page = 50
    show_full_result_count = False
    actions = ("acknowledge", "resolve")

    @admin.action(description="Acknowledge", permissions=["acknowledge"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet[Alert]) -> HttpResponse | None:
        """Acknowledge the selected alerts; more than 100 that match the list's filter are a bulk act."""
        if request.POST.get("select_across") == "1" and queryset.count() > AT_ONCE:
            filter = of_list(request.GET.dict())
            if filter is not None:
                address = reverse("switchyard-bulk-begin", args=["alert.acknowledge"])
                return HttpResponseRedirect(f"{address}?{urlencode(filter)}")
        self.apply(request, "acknowledge", list(queryset))
        return None

    @admin.action(description="Resolve", permissions=["acknowledge"])
    def resolve(self, request: HttpRequest, queryset: QuerySet[Alert]) -> None:
        """Resolve the selected alerts."""
        self.apply(request, "resolve", list(queryset))

    def get_urls(self) -> list[URLPattern]:
        """Add the action pages."""
        guard = self.admin_site.admin_view
        own = [
            path("silences/new/", guard(self.silence_view), name="switchyard_alerts_silence"),
            path("silences/<int:pk>/end/", guard(self.unsilence_view), name="switchyard_alerts_unsilence"),
            path("channels/test/", guard(self.test_view), name="switchyard_alerts_test"),
            path("<int:pk>/<str:verb>/do/", guard(self.one_view), name="switchyard_alerts_one"),
        ]
        return own + super().get_urls()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the alerts of now and the silences in force; with a filter the alerts that match."""
        if not self.has_view_permission(request):
            raise PermissionDenied("The missing right is switchyard_alerts.view_alert.")
        context = {
            "title": "Alerts",
            "may_acknowledge": self.has_acknowledge_permission(request),
            "may_silence": self.has_silence_permission(request),
        }
        context |= list_page.context_of(request) | (extra_context or {})
        if request.method in ("GET", "HEAD") and not list_page.asks(request):
            return TemplateResponse(request, LIST_PAGE, {**self.admin_site.each_context(request), **context})
        response = super().changelist_view(request, context)
        shown = getattr(response, "context_data", None) or {}
        if "cl" in shown:
            shown |= list_page.links_of(shown["cl"])
            shown["bulk_count"], shown["bulk_link"] = link_of_list(request.GET.dict())
        return response

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show one alert."""
        row = self.get_object(request, unquote(object_id))
        if request.method not in ("GET", "HEAD") or row is None or not self.has_view_permission(request, row):
            return super().change_view(request, object_id, form_url, extra_context)
        context = {
            **self.admin_site.each_context(request),
            "title": row.title,
            "subtitle": None,
            "opts": self.opts,
            "row": queries.counted_now([row])[0],
            "unresolved": row.state in UNRESOLVED,
            "silences": list(in_force(row.fingerprint)),
            "deliveries": list(row.deliveries.all()),
            "others": Alert.objects.filter(fingerprint=row.fingerprint).exclude(pk=row.pk).count(),
            "queue_url": links.queue_url(row.queue) if row.queue else "",
            "actor_url": links.actor_url(row.actor) if row.actor else "",
            "steps": BY_KIND.get(row.kind, ""),
            "may_acknowledge": self.has_acknowledge_permission(request),
            "may_silence": self.has_silence_permission(request),
        }
        return TemplateResponse(request, "switchyard_alerts/detail.html", context | (extra_context or {}))
