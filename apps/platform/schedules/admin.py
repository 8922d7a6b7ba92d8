"""Schedules in the admin: how far each came, and one run now."""

from __future__ import annotations

import datetime

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from apps.platform.console.admin_base import ModelAdmin, display
from apps.platform.console.read_only import ReadOnly
from apps.platform.schedules import queries, services
from apps.platform.schedules.models import ScheduleState
from broker.errors import BrokerUnavailable


@admin.register(ScheduleState)
class ScheduleStateAdmin(ReadOnly, ModelAdmin):
    """What the scheduler remembers. Rows appear when a scheduler first sees a schedule."""

    list_display = ["actor", "spec", "last_tick", "lateness", "next_tick", "last_job_id"]
    search_fields = ["actor"]
    actions = ["run_now"]
    list_per_page = 50

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may run schedules."""
        return request.user.has_perm("schedules.run_schedule")

    @display(description="Late by")
    def lateness(self, state: ScheduleState) -> str:
        """Return how late the last tick was sent."""
        return "" if state.lateness_ms is None else f"{state.lateness_ms / 1000:.1f} s"

    @display(description="Next", empty_value="not declared any more")
    def next_tick(self, state: ScheduleState) -> datetime.datetime | None:
        """Return when it is due next."""
        return queries.next_tick(state.actor, timezone.now())

    @admin.action(description="Run now", permissions=["run"])
    def run_now(self, request: HttpRequest, queryset: QuerySet[ScheduleState]) -> None:
        """Enqueue the actors of the chosen schedules."""
        for name in queryset.values_list("actor", flat=True):
            try:
                job_id = services.run_now(name)
            except (services.UnknownSchedule, BrokerUnavailable) as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{name} runs as job {job_id}.", messages.SUCCESS)
