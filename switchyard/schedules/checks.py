"""System checks of periodic actors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error
from dramatiq.actor import Actor

from switchyard.middleware.errors import place_of
from switchyard.schedules.registry import CATCH_UP, is_cron, periodic_actors
from switchyard.schedules.triggers import UTC, Cron, cron_fault, zone_fault


def check_schedules(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse schedules that could never run as declared."""
    found = sorted(periodic_actors(), key=lambda actor: actor.actor_name)
    return [error for actor in found for error in errors_of(actor)]


def errors_of(actor: Actor[Any, Any]) -> list[CheckMessage]:
    subject = f"actor {actor.actor_name} ({place_of(actor.fn)})"
    return [Error(fact, hint, subject, "switchyard.E050") for fact, hint in _faults(actor)]


def _faults(actor: Actor[Any, Any]) -> Iterator[tuple[str, str]]:
    """Yield facts with remedies."""
    spec, zone = actor.options["periodic"], actor.options.get("time_zone", UTC)
    if not is_cron(spec):
        yield f"periodic is a {type(spec).__name__}", "use periodic=cron('0 2 * * *') with periodiq's cron"
        return
    if wrong := zone_fault(zone):
        fact, _, remedy = wrong.partition("; ")
        yield fact, remedy
    elif fault := cron_fault(Cron.of(spec, zone)):
        yield fault
    if needed := _required(actor):
        fact = f"it is periodic and needs {', '.join(needed)}, but a tick passes no arguments"
        yield fact, "give each parameter a default, or let a periodic actor without parameters send it"
    if (catch_up := actor.options.get("catch_up", "once")) not in CATCH_UP:
        yield f"catch_up is {catch_up!r}", f"use one of {', '.join(CATCH_UP)}"


def _required(actor: Actor[Any, Any]) -> list[str]:
    parameters = inspect.signature(actor.fn).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in variadic]
