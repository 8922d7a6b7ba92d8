"""System checks of periodic actors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
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
    subject = f"actor {schedule.name} ({place_of(schedule.actor.fn)})"
    return [Error(fact, hint, subject, "switchyard.E050") for fact, hint in _faults(schedule)]


def _faults(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """Yield facts with remedies."""
    if not is_cron(schedule.spec):
        yield f"periodic is a {type(schedule.spec).__name__}", "use periodic=cron('0 2 * * *') with periodiq's cron"
        return
    if not schedule.text.startswith("@") and len(schedule.text.split()) != 5:
        fact = f"the schedule {schedule.text!r} has {len(schedule.text.split())} fields, of which five are read"
        yield fact, "write minute, hour, day, month and weekday, in UTC"
    if schedule.next(timezone.now()) is None:
        hint = "minutes are 0 to 59, hours 0 to 23, days 1 to 31, months 1 to 12, weekdays 0 to 7"
        yield f"the schedule {schedule.text!r} is never due", hint
    if needed := _required(schedule):
        fact = f"it is periodic and needs {', '.join(needed)}, but a tick passes no arguments"
        yield fact, "give each parameter a default, or let a periodic actor without parameters send it"
    if schedule.catch_up not in CATCH_UP:
        yield f"catch_up is {schedule.catch_up!r}", f"use one of {', '.join(CATCH_UP)}"


def _required(schedule: Schedule) -> list[str]:
    parameters = inspect.signature(schedule.actor.fn).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in variadic]
