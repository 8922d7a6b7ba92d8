"""Pauses of schedules. The leading scheduler reads them from the database before each tick."""

from __future__ import annotations

import datetime
import itertools

from django.db.models import F

from switchyard.audit.services import Who, act
from switchyard.broker import clock
from switchyard.database_text import storable
from switchyard.schedules import strips
from switchyard.schedules.models import ScheduleState
from switchyard.schedules.registry import Schedule
from switchyard.schedules.services import find, load_state
from switchyard.schedules.ticks import minute_of, ticks_back

# A schedule of every minute that was paused for two months; more are counted as so many.
MOST_COUNTED = 100_000


def pause(name: str, *, who: Who, reason: str = "", until: datetime.datetime | None = None) -> ScheduleState:
    """Pause a schedule, or change the reason and the end of its pause; return its state.

    Its ticks are missed until it is resumed or ``until`` is over. Later they are not sent either.

    Raises:
        NotFound: no periodic actor has that name.
        django.db.DatabaseError: the database did not answer; nothing is paused.
    """
    now = clock.utc_now()
    detail = {} if until is None else {"until": until.isoformat()}
    with act("schedule.pause", who=who, target=name, reason=reason, detail=detail) as entry:
        schedule = find(name)
        state = load_state(schedule, minute_of(now))
        pass_pause(schedule, state, now)
        fields = ["paused_until", "paused_by", "paused_reason"]
        if not state.is_paused(now):
            state.paused_at, state.missed = now, 0
            fields += ["paused_at", "missed"]
        state.paused_until, state.paused_by, state.paused_reason = until, who.name[:150], storable(reason)[:500]
        state.save(update_fields=fields)
        entry.count = 1
    return state


def resume(name: str, *, who: Who, reason: str = "") -> int | None:
    """Resume a schedule; return the number of ticks that its pause missed, ``None`` if it was not paused.

    Missed ticks are not sent; the next one is.

    Raises:
        NotFound: no periodic actor has that name.
        django.db.DatabaseError: the database did not answer; nothing is resumed.
    """
    now = clock.utc_now()
    with act("schedule.resume", who=who, target=name, reason=reason) as entry:
        schedule = find(name)
        state = ScheduleState.objects.filter(actor=name).first()
        if state is None or not state.is_paused(now):
            entry.count = 0
            return None
        _miss(schedule, state, minute_of(now))
        _end(state)
        entry.count, entry.detail = 1, {"missed": state.missed}
        return state.missed


def pass_pause(schedule: Schedule, state: ScheduleState, now: datetime.datetime) -> bool:
    """Count the ticks that a pause misses; return whether the schedule is paused.

    Of a pause that ended by itself the ticks before its end are missed, also when no scheduler ran then.
    """
    if state.is_paused(now):
        _miss(schedule, state, minute_of(now))
        return True
    if state.paused_at is not None and state.paused_until is not None:
        _miss(schedule, state, minute_of(state.paused_until - datetime.timedelta(microseconds=1)))
        _end(state)
    return False


def _miss(schedule: Schedule, state: ScheduleState, until: datetime.datetime) -> None:
    """Mark a schedule's ticks up to a minute as done, without sending them."""
    if until <= state.since:
        return
    back = ticks_back(schedule.spec, state.since, until)
    newest = list(itertools.islice(back, strips.KEPT))
    count = len(newest) + sum(1 for _ in itertools.islice(back, MOST_COUNTED))
    # Compared and set: of two schedulers that both believe to lead, one counts.
    unchanged = ScheduleState.objects.filter(pk=state.pk, since=state.since)
    if unchanged.update(since=until, missed=F("missed") + count):
        strips.note_missed(schedule.name, newest, state.paused_by)
    state.refresh_from_db(fields=["since", "missed"])


def _end(state: ScheduleState) -> None:
    state.paused_at = state.paused_until = None
    ScheduleState.objects.filter(pk=state.pk).update(paused_at=None, paused_until=None)
