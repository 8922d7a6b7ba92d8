"""Jobs on the admin's start page."""

from __future__ import annotations

from django.contrib import admin

from switchyard.console.room_entry import RoomEntry
from switchyard.jobs.models import Job


@admin.register(Job)
class JobEntry(RoomEntry):
    """Leads to the room's list."""

    page = "switchyard-jobs"
