"""Alerts in the admin, to read and acknowledge."""

from __future__ import annotations

from typing import cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.platform.alerts import services
from apps.platform.alerts.models import Alert, Delivery
from apps.platform.console.admin_base import ModelAdmin, TabularInline, display
from apps.platform.console.read_only import ReadOnly


class DeliveryInline(ReadOnly, TabularInline):
    """Deliveries on an alert's page."""

    model = Delivery
    fields = readonly_fields = ("channel", "count", "state", "tries", "sent_at", "next_try_at", "error")
    extra = 0
    verbose_name_plural = "messages sent"

    def has_view_permission(self, request: HttpRequest, obj: Alert | None = None) -> bool:
        """Return whether the user may view alerts."""
        return request.user.has_perm("switchyard_alerts.view_alert")


@admin.register(Alert)
class AlertAdmin(ReadOnly, ModelAdmin):
    """Read-only list of alerts with the action Acknowledge."""

    list_display = ("shown_severity", "title", "queue", "actor", "count", "first_at", "last_at", "shown_state")
    list_display_links = ("title",)
    list_filter = ("state", "severity", "kind", "queue", "last_at")
    search_fields = ("title", "fingerprint", "actor", "sample")
    list_per_page = 50
    show_full_result_count = False
    inlines = (DeliveryInline,)
    actions = ("acknowledge",)
    fields = readonly_fields = (
        "title", "severity", "sample", "kind", "queue", "actor", "count", "first_at", "last_at", "link", "fingerprint",
        "state", "acknowledged_by", "acknowledged_at",
    )  # fmt: skip

    @display(description="Severity", label={"critical": "danger", "warning": "warning"}, ordering="severity")
    def shown_severity(self, alert: Alert) -> tuple[str, str]:
        """Return the severity as a coloured label."""
        return alert.severity, alert.get_severity_display()

    @display(description="State", label={"open": "danger", "acknowledged": "success"}, ordering="state")
    def shown_state(self, alert: Alert) -> tuple[str, str]:
        """Return the state as a coloured label."""
        return alert.state, alert.get_state_display()

    @admin.action(description="Acknowledge the selected alerts", permissions=["acknowledge"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet[Alert]) -> None:
        """Acknowledge the selected alerts."""
        user = cast(User, request.user)
        done = sum(services.acknowledge(alert, by=user) for alert in queryset)
        already = queryset.count() - done
        tail = f"; {already} had been acknowledged before" if already else ""
        messages.success(request, f"Acknowledged {done} alert{'' if done == 1 else 's'}{tail}.")

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may acknowledge."""
        return request.user.has_perm("switchyard_alerts.acknowledge_alert")
