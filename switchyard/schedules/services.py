"""Sending of ticks, each exactly once, and the stored progress of each schedule."""

from __future__ import annotations

import datetime
import difflib
import itertools
import uuid

from django.db import DatabaseError
from django.db.models import F

from switchyard.audit.services import Who, act
from switchyard.broker import clock
from switchyard.broker.errors import NotFound
from switchyard.broker.interface import facilities
from switchyard.broker.stores.job_records import JobRecords
from switchyard.database import storable
from switchyard.jobs.services import submit
from switchyard.loggers import get_logger
from switchyard.middleware.envelope import FixedSender, sent_by
from switchyard.schedules import queries
from switchyard.schedules.models import ScheduleState
from switchyard.schedules.registry import Schedule, minute_of, schedules, ticks_back

log = get_logger("switchyard.scheduler")
TICK_KEPT_S = 7 * 24 * 3600
# Clocks of two schedulers may differ by so much.
CLOCKS_DIFFER = datetime.timedelta(minutes=1)
CLAIMED, SENT = b"claimed", b"sent"
_TICKS = uuid.UUID("5b0a1c51-6d0f-5f0e-9d9e-6f1d1b0f7c11")


def find(name: str) -> Schedule:
    """Return the schedule of a periodic actor.

    Raises:
        NotFound: no periodic actor has that name.
    """
    known = {schedule.name: schedule for schedule in schedules()}
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        remedy = f"did you mean {near[0]}?" if near else "see manage.py switchyard schedules list"
        raise NotFound(f"schedule {name}: no actor of that name is periodic; {remedy}")
    return known[name]


def run_now(name: str, *, who: Who, reason: str = "") -> str:
    """Enqueue a schedule's actor now, independent of its ticks and of a pause, and return the job id.

    Raises:
        NotFound: no periodic actor has that name.
        BrokerUnavailable: the broker did not answer.
    """
    with act("schedule.run", who=who, target=name, reason=reason, essential=False) as entry:
        with sent_by(FixedSender(schedule=name, user=who.name)):
            job_id = submit(find(name).actor, kwargs={})
        try:
            queries.note_run(name, clock.utc_now(), job_id, who.name)
        except DatabaseError as error:  # the job is sent: raising here would report that it is not
            log.warning("run not kept in the history", schedule=name, job_id=job_id, error=type(error).__name__)
        entry.count, entry.detail = 1, {"job": job_id}
    return job_id


def load_state(schedule: Schedule, minute: datetime.datetime) -> ScheduleState:
    """Return a schedule's stored state. A new schedule, or one whose expression changed, starts with ``minute``.

    So does one whose progress lies in the future, because a clock was ahead: it would be silent for as long.
    """
    before = minute - datetime.timedelta(minutes=1)
    state, created = ScheduleState.objects.get_or_create(
        actor=schedule.name, defaults={"spec": schedule.text, "since": before}
    )
    is_ahead = state.since > minute + CLOCKS_DIFFER
    if is_ahead:
        log.warning("progress lies in the future, ticks go on from now", schedule=schedule.name, since=str(state.since))
        _forget(schedule, state.last_tick)
    if not created and (is_ahead or state.spec != schedule.text):
        state.spec, state.since = schedule.text, before
        state.save(update_fields=["spec", "since"])
    return state


def send_tick(schedule: Schedule, tick: datetime.datetime, now: datetime.datetime) -> str | None:
    """Enqueue one tick and store it; return the job id, or ``None`` if another scheduler has sent it.

    Claims the tick with a key kept for 7 days, enqueues it, then marks the key as sent. If a scheduler dies in
    between, the next one finds the claim and enqueues the tick only if its job, whose id is derived from actor and
    minute, does not exist.

    Raises:
        BrokerUnavailable: the broker did not answer; call again.
    """
    job_id = str(uuid.uuid5(_TICKS, f"{schedule.name} {tick.isoformat()}"))
    sent_now = _send_once(schedule, tick, job_id)
    fields = {"since": tick, "last_tick": tick, "last_job_id": job_id}
    late_ms = max(int((now - tick).total_seconds() * 1000), 0) if sent_now else None
    if late_ms is not None:
        fields["lateness_ms"] = late_ms
    queries.note_sent(schedule.name, tick, job_id, late_ms)
    ScheduleState.objects.filter(actor=schedule.name, since__lt=tick).update(**fields)
    return job_id if sent_now else None


def _forget(schedule: Schedule, tick: datetime.datetime | None) -> None:
    """Have a tick that was sent before its time sent again when it is due."""
    if tick is not None:
        records = facilities(schedule.actor.broker).records
        records.calls.command("DEL", _key(records, schedule, tick))


def _key(records: JobRecords, schedule: Schedule, tick: datetime.datetime) -> str:
    return records.keys.tick(schedule.name, tick.strftime("%Y-%m-%dT%H:%MZ"))


def _send_once(schedule: Schedule, tick: datetime.datetime, job_id: str) -> bool:
    records = facilities(schedule.actor.broker).records
    key = _key(records, schedule, tick)
    sent = False
    if records.calls.command("SET", key, CLAIMED, "NX", "EX", TICK_KEPT_S) is None:
        if records.calls.command("GET", key) == SENT:
            return False
        sent = records.read(job_id) is not None
    if not sent:
        with sent_by(FixedSender(schedule=schedule.name)):
            schedule.actor.broker.enqueue(schedule.actor.message().copy(message_id=job_id))
    records.calls.command("SET", key, SENT, "EX", TICK_KEPT_S)
    return not sent


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
    newest = list(itertools.islice(back, queries.KEPT))
    count = len(newest) + sum(1 for _ in itertools.islice(back, MOST_COUNTED))
    # Compared and set: of two schedulers that both believe to lead, one counts.
    unchanged = ScheduleState.objects.filter(pk=state.pk, since=state.since)
    if unchanged.update(since=until, missed=F("missed") + count):
        queries.note_missed(schedule.name, newest, state.paused_by)
    state.refresh_from_db(fields=["since", "missed"])


def _end(state: ScheduleState) -> None:
    state.paused_at = state.paused_until = None
    ScheduleState.objects.filter(pk=state.pk).update(paused_at=None, paused_until=None)
