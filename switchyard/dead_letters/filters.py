"""Filters of the list of dead letters."""

from __future__ import annotations

from typing import Any

import dramatiq
from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from switchyard.conf import declared_yard
from switchyard.dead_letters.models import DeadLetter

REASONS = ("exhausted", "permanent", "poison", "suspected_poison", "time_limit")


class StateFilter(SimpleListFilter):
    """Filter by state; shows the open letters by default."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Return open, each state, and all."""
        return [("open", "Open"), *DeadLetter.State.choices, ("all", "All")]

    def value(self) -> str:
        """Return the chosen value, ``open`` by default."""
        return super().value() or "open"

    def choices(self, changelist: ChangeList) -> Any:
        """Leave out Django's own first choice: "all" is the last one here."""
        yield from list(super().choices(changelist))[1:]

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        """Apply the chosen value."""
        chosen = self.value()
        if chosen == "all":
            return queryset
        return queryset.filter(is_open=1) if chosen == "open" else queryset.filter(state=chosen)


class FieldFilter(SimpleListFilter):
    """Filter by one column whose values are known without reading the table."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        """Apply the chosen value."""
        chosen = self.value()
        return queryset.filter(**{str(self.parameter_name): chosen}) if chosen else queryset


class QueueFilter(FieldFilter):
    """Filter by a queue of the yard."""

    title = parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Return every queue."""
        return [(queue.name, queue.name) for queue in declared_yard().queues]


class ReasonFilter(FieldFilter):
    """Filter by the reason of the death."""

    title = parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Return every reason."""
        return [(reason, reason.replace("_", " ")) for reason in REASONS]


class ActorFilter(FieldFilter):
    """Filter by an actor that this process knows; the search finds removed actors."""

    title = parameter_name = "actor"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Return every known actor."""
        return [(name, name) for name in sorted(dramatiq.get_broker().actors)]
