"""Checks of the scheduler: a leader exists, its lease expires, and no tick is late."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from django.utils import timezone

from switchyard.conf import declared_yard
from switchyard.console.formatting import counted, duration
from switchyard.leadership import LEASE_S, SCHEDULER
from switchyard.operations.findings.finding import Act, Finding, FindingGroup
from switchyard.operations.findings.snapshot import quick_client
from switchyard.schedules.models import ScheduleState
from switchyard.schedules.registry import schedules
from switchyard.schedules.ticks import minute_of

GROUP = FindingGroup("scheduler")
LATE = datetime.timedelta(minutes=2)
SENT_LATE_MS = 60_000


def look_at_leader() -> Iterator[Finding]:
    """Check the leader's lease in the broker.

    Raises:
        redis.RedisError: the broker does not answer.
    """
    with quick_client() as client:
        left_ms = int(client.pttl(declared_yard().keys.lock(SCHEDULER)))
    if left_ms == -2:
        seen = "no scheduler leads: no schedule is sent and no alert is delivered"
        cause = "No scheduler runs; missed ticks are caught up as each schedule declares, alerts wait"
        yield GROUP.warning("down", seen, cause, "manage.py switchyard runscheduler", act=look_at_schedules())
    elif left_ms == -1 or left_ms > LEASE_S * 1000:
        seen = (
            "the leader's lease never expires"
            if left_ms == -1
            else f"the leader's lease expires in {duration(left_ms)}"
        )
        cause = "Another program wrote the lock; no scheduler can take over, and two may lead once it is deleted"
        yield GROUP.error(
            "lease", seen, cause, f"valkey-cli DEL {declared_yard().keys.lock(SCHEDULER)}", act=look_at_schedules()
        )
    else:
        yield GROUP.ok(f"a scheduler leads, its lease expires in {duration(left_ms)}")


def look_at_schedules() -> Act | None:
    """Return the button that leads to all schedules; ``None`` where there is none."""
    count = len(schedules())
    return Act(f"Show {counted(count, 'schedule')}", "switchyard-schedules") if count else None


def _look_at(name: str) -> Act:
    return Act(f"Show the schedule {name}", "switchyard-schedule", name)


def look_at_ticks() -> Iterator[Finding]:
    """Check the last tick of each schedule in the database.

    Raises:
        django.db.DatabaseError: the database does not answer.
    """
    now = timezone.now()
    states = {state.actor: state for state in ScheduleState.objects.all()}
    late = paused = 0
    for schedule in schedules():
        state = states.get(schedule.name)
        if state is None:
            continue  # not seen by a scheduler yet
        if state.is_paused(now):
            paused += 1
            yield _paused(schedule.name, state)
            continue
        due = schedule.next(state.since)
        if due is not None and due <= minute_of(now) - LATE:
            late += 1
            seen = f"{schedule.name} was due {duration((now - due).total_seconds() * 1000)} ago and was not sent"
            cause = "No scheduler leads, or it cannot reach broker or database"
            step = "manage.py switchyard schedules list"
            yield GROUP.warning("late", seen, cause, step, schedule.name, _look_at(schedule.name))
        elif state.lateness_ms is not None and state.lateness_ms > SENT_LATE_MS:
            late += 1
            seen = f"the last tick of {schedule.name} was sent {duration(state.lateness_ms)} late"
            cause = "No scheduler led when it was due; it has been caught up"
            yield GROUP.ok(seen, cause=cause, subject=schedule.name)
    if not late:
        others = f", {paused} paused" if paused else ""
        yield GROUP.ok(f"{counted(len(states), 'schedule')}, none is late{others}")


def _paused(name: str, state: ScheduleState) -> Finding:
    until = f"until {state.paused_until:%Y-%m-%d %H:%M} UTC" if state.paused_until else "without an end"
    missed = f", and has missed {counted(state.missed, 'tick')}, which will not be sent"
    seen = f"{name} is paused {until}{missed if state.missed else '; it has missed no tick yet'}"
    reason = f": {state.paused_reason}" if state.paused_reason else ", without a reason"
    cause = f"{state.paused_by or 'An operator'} paused it{reason}"
    return GROUP.warning("paused", seen, cause, f"manage.py switchyard schedules resume {name}", name, _look_at(name))
