"""Stored schedules: faults of a row, the schedule that it stands for, its changes, and its JSON."""

import datetime
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast

import dramatiq
from django.db import transaction

from switchyard.audit.services import Who, act
from switchyard.broker import clock
from switchyard.broker.errors import ArgumentsRefused, NotFound
from switchyard.console import formatting
from switchyard.database import storable
from switchyard.jobs.calls import WHOLE_CALL, checked, redacted_names
from switchyard.middleware.arguments import signature_of
from switchyard.middleware.errors import ArgumentMismatch
from switchyard.schedules.models import ScheduleState, ScheduleTick, StoredSchedule
from switchyard.schedules.registry import (
    CATCH_UP,
    OVERLAP,
    CatchUp,
    Cron,
    Every,
    Overlap,
    Schedule,
    Trigger,
    cron_fault,
    minute_of,
    periodic_actors,
    schedules,
    zone_fault,
)

ARGUMENTS: Final = "arguments"
TIMING: Final = ("cron", "every_s", "time_zone", "start", "end")
FIELDS: Final = ("name", "actor", "args", "kwargs", *TIMING, "overlap", "deadline_s", "catch_up")
MOST_S: Final = 366 * 24 * 3600
LARGE: Final = re.compile(r"\d{3}")


def all_schedules() -> list[Schedule]:
    """Return the schedules of periodic actors and of rows, by name; rows that cannot be used are left out."""
    return sorted([*schedules(), *stored_schedules()[0]], key=lambda schedule: schedule.name)


def stored_schedules() -> tuple[list[Schedule], dict[str, str]]:
    """Return the schedules of rows, and the faults of the rows that cannot be used by their names."""
    found, faulty = [], {}
    for row in StoredSchedule.objects.all():
        if wrong := faults(row):
            faulty[row.name] = words_of(wrong)
        else:
            found.append(schedule_of(row))
    return found, faulty


def schedulable_actors() -> list[str]:
    """Return the names of the actors that people may schedule, sorted."""
    return sorted(name for name, actor in dramatiq.get_broker().actors.items() if actor.options.get("schedulable"))


def words_of(wrong: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {fault}" if name else fault for name, fault in wrong.items())


def faults(row: StoredSchedule) -> dict[str, str]:
    """Return the faults of a row by field, ``{}`` for one that can be used; never with the value of an argument."""
    found = {name: fault for name, fault in _plain_faults(row).items() if fault}
    if "time_zone" not in found and (fault := _trigger_fault(row)):
        found["every_s" if row.every_s is not None else "cron"] = fault
    if any(actor.actor_name == row.name for actor in periodic_actors()):
        found["name"] = f"the actor {row.name} is periodic, and its schedule has this name; write another"
    actor = dramatiq.get_broker().actors.get(row.actor)
    if actor is None or not actor.options.get("schedulable"):
        why = "this code has no actor of that name" if actor is None else "the actor does not allow it"
        return found | {"actor": f"{why}; declare it with schedulable=True, or choose another"}
    if row.overlap != "allow" and actor.options.get("track") is False:
        found["overlap"] = "the actor has track=False, so nobody knows whether its job has ended; use allow"
    if found.keys() & {"args", "kwargs"}:
        return found
    try:
        checked(actor, row.args, row.kwargs)
    except (ArgumentsRefused, ArgumentMismatch) as error:
        wrong = getattr(error, "faults", {}) or {WHOLE_CALL: str(error)}
        return found | {ARGUMENTS: words_of(wrong)}
    hidden = redacted_names(actor) & signature_of(actor.fn).bind(*row.args, **row.kwargs).arguments.keys()
    if hidden:
        found[ARGUMENTS] = f"{', '.join(sorted(hidden))}: hidden everywhere, so no schedule keeps it; leave it out"
    return found


def _plain_faults(row: StoredSchedule) -> dict[str, str]:
    name, between = row.name, f"write seconds, from 1 to {MOST_S:,}"
    is_named = isinstance(name, str) and 0 < len(name) <= 100 and name.isprintable() and name == name.strip()
    bounds = [moment for moment in (row.start, row.end) if moment is not None]
    return {
        "name": "" if is_named and "/" not in name else "write 1 to 100 characters, without /",
        "time_zone": zone_fault(row.time_zone),
        "end": "" if len(bounds) < 2 or bounds[0] < bounds[1] else "it is not after the start; write a later time",
        "overlap": "" if row.overlap in OVERLAP else f"use one of {', '.join(OVERLAP)}",
        "catch_up": "" if row.catch_up in CATCH_UP else f"use one of {', '.join(CATCH_UP)}",
        "deadline_s": "" if row.deadline_s is None or _is_number(row.deadline_s, 1) else between,
        "kwargs": "" if isinstance(row.kwargs, dict) else "write a JSON object",
        "args": "" if isinstance(row.args, list) else "write a JSON list",
    }


def _is_number(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= MOST_S


def _trigger_fault(row: StoredSchedule) -> str:
    if bool(row.cron) == (row.every_s is not None):
        return "write a cron expression or an interval, and not both"
    if row.every_s is not None:
        is_whole = _is_number(row.every_s, 60) and row.every_s % 60 == 0
        return "" if is_whole else "write whole minutes, from 1 minute to 366 days"
    # Ranges are expanded: a number of many digits would fill the memory.
    if LARGE.search(row.cron) or len(row.cron) > 100:
        return "write at most 100 characters, and numbers up to 59"
    try:
        fault = cron_fault(_cron_of(row.cron, row.time_zone))
    except (ValueError, KeyError, IndexError):
        return f"{row.cron!r:.110} is not a cron expression; write minute, hour, day, month and weekday: 0 2 * * *"
    return "; ".join(fault) if fault else ""


@lru_cache(maxsize=1_000)
def _cron_of(text: str, zone: str) -> Cron:
    # Here for the reason of ``registry.is_cron``.
    from periodiq import cron

    return Cron.of(cron(text), zone)


def schedule_of(row: StoredSchedule) -> Schedule:
    trigger: Trigger
    if row.every_s is None:
        trigger = _cron_of(row.cron, row.time_zone)
    else:
        trigger = Every(row.every_s, minute_of(row.start or row.created_at), row.time_zone)
    return Schedule(
        row.name, dramatiq.get_broker().actors[row.actor], trigger, cast("CatchUp", row.catch_up),
        tuple(row.args), row.kwargs, row.start, row.end, cast("Overlap", row.overlap), row.deadline_s, is_stored=True,
    )  # fmt: skip


def find_row(name: str) -> StoredSchedule:
    """Return a row by its name; ``NotFound`` when no row has it."""
    row = StoredSchedule.objects.filter(name=name).first()
    if row is None:
        raise NotFound(f"schedule {name:.200}: no stored schedule has that name; those of code are changed in code")
    return row


def save(row: StoredSchedule, *, who: Who, reason: str = "") -> bool:
    """Store a new or changed row, or ``ArgumentsRefused``; return whether it differs from what was stored."""
    if wrong := faults(row):
        raise ArgumentsRefused(f"schedule {row.name:.100}: {words_of(wrong)}", wrong)
    known = StoredSchedule.objects.filter(name=row.name).first()
    changed = [name for name in FIELDS if known is None or getattr(row, name) != getattr(known, name)]
    if not changed:
        return False
    # Values of arguments are not for everybody who may read the audit log.
    plain = [name for name in changed if name not in ("args", "kwargs")]
    detail = {name: _shown(getattr(row, name)) if name in plain else "changed" for name in changed}
    if known is not None:
        detail |= {f"{name} before": _shown(getattr(known, name)) for name in plain}
    with act("schedule.save", who=who, target=row.name, reason=reason, detail=detail):
        if known is None:
            _forget(row.name)
        else:
            row.pk, row.created_at = known.pk, known.created_at
        row.changed_by = who.name[:150]
        row.save()
    return True


def delete(name: str, *, who: Who, reason: str = "") -> None:
    """Delete a row with its progress and its ticks. Jobs that it sent go on.

    Raises:
        NotFound: no row has that name.
        django.db.DatabaseError: the database did not answer; nothing is deleted.
    """
    row = find_row(name)
    detail = {field: _shown(getattr(row, field)) for field in FIELDS if field not in ("args", "kwargs")}
    with act("schedule.delete", who=who, target=name, reason=reason, detail=detail), transaction.atomic():
        row.delete()
        _forget(name)


def _forget(name: str) -> None:
    """Drop progress and ticks: a schedule that is made later begins then."""
    ScheduleState.objects.filter(actor=name).delete()
    ScheduleTick.objects.filter(schedule=name).delete()


def _shown(value: Any) -> Any:
    return value.astimezone(datetime.UTC).isoformat() if isinstance(value, datetime.datetime) else value


def as_json(row: StoredSchedule, *, paused: bool) -> dict[str, Any]:
    """Return a row as JSON; times are ISO 8601 in UTC."""
    return {name: _shown(getattr(row, name)) for name in FIELDS} | {"paused": paused}


def from_json(given: Any) -> tuple[StoredSchedule, bool]:
    """Return the row of an item of an export, and whether it is paused; ``ArgumentsRefused`` for an unusable one."""
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise ArgumentsRefused("a schedule is a JSON object with a name; compare schedules export")
    values, name = dict(given), given["name"]
    paused = values.pop("paused", False)
    if unknown := values.keys() - set(FIELDS):
        known = ", ".join((*FIELDS, "paused"))
        raise ArgumentsRefused(f"schedule {name:.100}: unknown field {', '.join(sorted(unknown))}; known are {known}")
    for field in ("start", "end"):
        try:
            values[field] = moment_of(values.get(field))
        except (TypeError, ValueError):
            raise ArgumentsRefused(f"schedule {name:.100}: {field} is not a time; write ISO 8601 in UTC") from None
    row = StoredSchedule(**values)
    if not all(isinstance(getattr(row, field), str) for field in ("actor", "cron", "time_zone", "overlap", "catch_up")):
        raise ArgumentsRefused(f"schedule {name:.100}: actor, cron, time_zone, overlap and catch_up are texts")
    row.name = storable(row.name)
    return row, paused is True


def moment_of(text: Any) -> datetime.datetime | None:
    """Return the time of a text in ISO 8601, UTC without an offset; ``None`` for "", ``TypeError``, ``ValueError``."""
    if text in (None, ""):
        return None
    try:
        return formatting.moment_of(text).astimezone(datetime.UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def exported() -> list[dict[str, Any]]:
    now = clock.utc_now()
    paused = {state.actor for state in ScheduleState.objects.exclude(paused_at=None) if state.is_paused(now)}
    return [as_json(row, paused=row.name in paused) for row in StoredSchedule.objects.all()]
