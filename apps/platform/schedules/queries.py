"""Reads of the schedules, for the command and the admin."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from apps.platform.schedules.models import ScheduleState
from apps.platform.schedules.registry import schedules


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """State of one schedule. Fields are ``None`` before the first tick; ``next_tick`` if there is no next one."""

    name: str
    spec: str
    queue: str
    catch_up: str
    last_tick: datetime.datetime | None
    last_job_id: str | None
    lateness_ms: int | None
    next_tick: datetime.datetime | None


def overview(now: datetime.datetime) -> list[ScheduleRow]:
    """Return every declared schedule by name, including those that no scheduler has run yet."""
    states = {state.actor: state for state in ScheduleState.objects.all()}
    rows = []
    for schedule in schedules():
        state = states.get(schedule.name)
        rows.append(
            ScheduleRow(
                name=schedule.name,
                spec=schedule.text,
                queue=schedule.actor.queue_name,
                catch_up=schedule.catch_up,
                last_tick=state.last_tick if state else None,
                last_job_id=(state.last_job_id or None) if state else None,
                lateness_ms=state.lateness_ms if state else None,
                next_tick=schedule.next(now),
            )
        )
    return rows


def next_tick(name: str, now: datetime.datetime) -> datetime.datetime | None:
    """Return a schedule's next tick, or ``None`` if there is none or the schedule is no longer declared."""
    found = (schedule for schedule in schedules() if schedule.name == name)
    return next((schedule.next(now) for schedule in found), None)
