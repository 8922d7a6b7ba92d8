"""Entries of Django's admin that lead to the lists of the room."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from switchyard.alerts.models import Alert
from switchyard.console.links import admin_site
from switchyard.console.room_view import ReadOnly
from switchyard.dead_letters.models import DeadLetter
from switchyard.jobs.models import Job
from switchyard.schedules.models import ScheduleState

LISTS = {
    Alert: "switchyard-alerts",
    DeadLetter: "switchyard-letters",
    Job: "switchyard-jobs",
    ScheduleState: "switchyard-schedules",
}


@admin.register(*LISTS, site=admin_site())
class RoomEntry(ReadOnly, admin.ModelAdmin):
    """Line of a model on the admin's start page, for who may view it; it leads to the room's list of its rows."""

    def get_urls(self) -> list[Any]:
        """Return one address, which the room's own hides where both have the same."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return [path("", RedirectView.as_view(pattern_name=LISTS[self.model]), name=name)]
