"""Schedules in the admin: their state, and an action that runs one now."""

from __future__ import annotations

import datetime

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from switchyard.audit.services import Who
from switchyard.broker.errors import BrokerError
from switchyard.console.list_queries import CheckedQuery
from switchyard.console.read_only import ReadOnly
from switchyard.schedules import queries, services
from switchyard.schedules.models import ScheduleState


@admin.register(ScheduleState)
class ScheduleStateAdmin(ReadOnly, CheckedQuery):
    """Stored states of schedules. The scheduler creates a row the first time it runs a schedule."""

    list_display = ["actor", "spec", "last_tick", "lateness", "next_tick", "last_job_id"]
    search_fields = ["actor"]
    actions = ["run_now"]
    list_per_page = 50

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may run schedules."""
        return request.user.has_perm("switchyard_schedules.run_schedule")

    @admin.display(description="Late by")
    def lateness(self, state: ScheduleState) -> str:
        """Return the delay of the last tick."""
        return "" if state.lateness_ms is None else f"{state.lateness_ms / 1000:.1f} s"

    @admin.display(description="Next", empty_value="no longer declared")
    def next_tick(self, state: ScheduleState) -> datetime.datetime | None:
        """Return the next tick."""
        return queries.next_tick(state.actor, timezone.now())

    @admin.action(description="Run now", permissions=["run"])
    def run_now(self, request: HttpRequest, queryset: QuerySet[ScheduleState]) -> None:
        """Enqueue the actors of the selected schedules."""
        for name in queryset.values_list("actor", flat=True):
            try:
                job_id = services.run_now(name, who=Who.of_request(request))
            except (services.UnknownSchedule, BrokerError) as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{name} runs as job {job_id}.", messages.SUCCESS)
