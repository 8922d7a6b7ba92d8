"""Alerts on the admin's start page."""

from __future__ import annotations

from django.contrib import admin

from switchyard.alerts.models import Alert
from switchyard.console.room_entry import RoomEntry


@admin.register(Alert)
class AlertEntry(RoomEntry):
    """Leads to the room's list."""

    page = "switchyard-alerts"
