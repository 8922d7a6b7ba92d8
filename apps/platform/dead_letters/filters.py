"""Filters of the list of dead letters."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.platform.dead_letters.models import OPEN_STATES, DeadLetter


class StateFilter(SimpleListFilter):
    """State, with the open ones unless something else is asked for."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Open, each state by itself, everything."""
        return [("open", "Open"), *DeadLetter.State.choices, ("all", "All")]

    def value(self) -> str:
        """Return what is chosen, ``open`` by default."""
        return super().value() or "open"

    def choices(self, changelist: ChangeList) -> Any:
        """Leave out Django's own first choice: here "all" is the last."""
        yield from list(super().choices(changelist))[1:]

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        """Filter."""
        chosen = self.value()
        if chosen == "all":
            return queryset
        return queryset.filter(state__in=OPEN_STATES if chosen == "open" else (chosen,))
