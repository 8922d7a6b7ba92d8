"""Dead letters on the admin's start page."""

from __future__ import annotations

from django.contrib import admin

from switchyard.console.room_entry import RoomEntry
from switchyard.dead_letters.models import DeadLetter


@admin.register(DeadLetter)
class DeadLetterEntry(RoomEntry):
    """Leads to the room's list."""

    page = "switchyard-letters"
