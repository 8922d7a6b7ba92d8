"""Schedules on the admin's start page."""

from __future__ import annotations

from django.contrib import admin

from switchyard.console.room_entry import RoomEntry
from switchyard.schedules.models import ScheduleState


@admin.register(ScheduleState)
class ScheduleStateEntry(RoomEntry):
    """Leads to the room's list."""

    page = "switchyard-schedules"
