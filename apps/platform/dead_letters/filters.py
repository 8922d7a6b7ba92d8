"""Filters of the list of dead letters."""

from __future__ import annotations

from typing import Any

import dramatiq
from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.platform.conf import declared_yard
from apps.platform.dead_letters.models import DeadLetter

REASONS = ("exhausted", "permanent", "poison", "time_limit")


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
        return queryset.filter(is_open=1) if chosen == "open" else queryset.filter(state=chosen)


class FieldFilter(SimpleListFilter):
    """One column, with values that are known without reading the table."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        """Filter."""
        chosen = self.value()
        return queryset.filter(**{str(self.parameter_name): chosen}) if chosen else queryset


class QueueFilter(FieldFilter):
    """Queues of the yard."""

    title = parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Every queue."""
        return [(queue.name, queue.name) for queue in declared_yard().queues]


class ReasonFilter(FieldFilter):
    """Why a message was given up."""

    title = parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Every reason."""
        return [(reason, reason.replace("_", " ")) for reason in REASONS]


class ActorFilter(FieldFilter):
    """Actors that this process knows; one that is gone is found by searching."""

    title = parameter_name = "actor"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Every actor."""
        return [(name, name) for name in sorted(dramatiq.get_broker().actors)]
