"""Entry of Django's admin that leads to a page of the room."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from switchyard.console.read_only import ReadOnly


class RoomEntry(ReadOnly, admin.ModelAdmin):
    """Line of a model on the admin's start page, for who may view it; ``page`` names the room's list of its rows."""

    page = ""

    def get_urls(self) -> list[Any]:
        """Return one address, which the room's own hides where both have the same."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return [path("", RedirectView.as_view(pattern_name=self.page), name=name)]
