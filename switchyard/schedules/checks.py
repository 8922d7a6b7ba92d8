"""System checks of periodic actors."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error
from django.utils import timezone

from switchyard.middleware.places import place_of
from switchyard.schedules.registry import CATCH_UP, Schedule, is_cron, schedules


def check_schedules(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse schedules that could never run as declared."""
    return [error for schedule in schedules() for error in errors_of(schedule)]


def errors_of(schedule: Schedule) -> list[CheckMessage]:
    """Return the errors of one schedule."""
    found: list[CheckMessage] = []
    subject = f"actor {schedule.name} ({place_of(schedule.actor.fn)})"
    if not is_cron(schedule.spec):
        fact = f"periodic is a {type(schedule.spec).__name__}"
        hint = "use periodic=cron('0 2 * * *') with periodiq's cron"
        return [Error(fact, obj=subject, hint=hint, id="switchyard.E050")]
    if not schedule.text.startswith("@") and len(schedule.text.split()) != 5:
        fact = f"the schedule {schedule.text!r} has {len(schedule.text.split())} fields, of which five are read"
        hint = "write minute, hour, day, month and weekday, in UTC"
        found.append(Error(fact, obj=subject, hint=hint, id="switchyard.E050"))
    if schedule.next(timezone.now()) is None:
        fact = f"the schedule {schedule.text!r} is never due"
        hint = "minutes are 0 to 59, hours 0 to 23, days 1 to 31, months 1 to 12, weekdays 0 to 7"
        found.append(Error(fact, obj=subject, hint=hint, id="switchyard.E050"))
    needed = _required(schedule)
    if needed:
        fact = f"it is periodic and needs {', '.join(needed)}, but a tick passes no arguments"
        hint = "give each parameter a default, or let a periodic actor without parameters send it"
        found.append(Error(fact, obj=subject, hint=hint, id="switchyard.E050"))
    if schedule.catch_up not in CATCH_UP:
        fact = f"catch_up is {schedule.catch_up!r}"
        found.append(Error(fact, obj=subject, hint=f"use one of {', '.join(CATCH_UP)}", id="switchyard.E050"))
    return found


def _required(schedule: Schedule) -> list[str]:
    parameters = inspect.signature(schedule.actor.fn).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in variadic]
