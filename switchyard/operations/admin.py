"""Entries of Django's admin that lead to the lists of the room."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import path
from django.views.generic import RedirectView

from switchyard.alerts.models import Alert
from switchyard.console.links import admin_site
from switchyard.console.room_view import ReadOnly
from switchyard.dead_letters.models import DeadLetter
from switchyard.jobs.models import Job
from switchyard.operations.models import OperationsRoom
from switchyard.schedules.models import ScheduleState

LISTS = {
    Alert: "switchyard-alerts",
    DeadLetter: "switchyard-letters",
    Job: "switchyard-jobs",
    OperationsRoom: "switchyard-operations",
    ScheduleState: "switchyard-schedules",
}


@admin.register(*LISTS, site=admin_site())
class RoomEntry(ReadOnly, admin.ModelAdmin):
    """Line of a model on the admin's start page, for who may view it; it leads to the room's list of its rows."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may view the list; the room has a permission of its own."""
        if self.model is OperationsRoom:
            return bool(request.user.has_perm("switchyard_operations.view_operations"))
        return super().has_view_permission(request, obj)

    def get_urls(self) -> list[Any]:
        """Return one address, which the room's own hides where both have the same."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return [path("", RedirectView.as_view(pattern_name=LISTS[self.model]), name=name)]
